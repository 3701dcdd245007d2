//! Watches over the rules: other programs flush tables and set up firewalls, and each change is told by the kernel.

use std::io;
use std::sync::Weak;

use netlink_sys::Socket as RawSocket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Core;
use crate::netlink::{Socket, drain};
use crate::nft::NETFILTER;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const CHANGES_OF_RULES: u32 = 7;

/// Begins to listen.
#[allow(unsafe_code)]
pub(super) fn events() -> io::Result<AsyncFd<RawSocket>> {
    let socket = Socket::open_for_group(NETFILTER, CHANGES_OF_RULES)?;
    // SAFETY: the socket owns its descriptor, and nothing closes or replaces it while the `AsyncFd` has it.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    registered.map_err(|failed| failed.into_parts().1)
}

/// After every change by anybody, looks whether something has to be put right.
pub(super) async fn keep(core: Weak<Core>, events: AsyncFd<RawSocket>) {
    loop {
        let told = events.readable().await.and_then(|mut ready| {
            ready.clear_ready();
            drain(events.get_ref())
        });
        if let Err(error) = told {
            tracing::warn!(%error, "cannot listen to changes of the packet filter any longer");
            return;
        }
        let Some(core) = core.upgrade() else { return };
        match tokio::task::spawn_blocking(move || core.rules.mend()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot put the service rules right"),
            Err(error) => tracing::warn!(%error, "the work on the service rules broke"),
        }
    }
}
