//! `stead quickstart`: from nothing to three ordered replicas, one of them killed and replaced in its stead, all shown live.
//!
//! Works offline: the demo image is made from this very binary.

mod screen;
mod story;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::arguments::{Command, QuickstartFlags, ServerFlags, Stead};
use crate::server::{Server, Settings, block_on};
use crate::{kill_all, machine, own_image, shutdown, telemetry};
use screen::Screen;

pub(crate) fn run(flags: &QuickstartFlags) -> Result<ExitCode> {
    telemetry::start("error");
    anyhow::ensure!(
        machine::is_root(),
        "quickstart runs real containers, which needs root: sudo {}",
        std::env::current_exe()?.display()
    );
    let screen = Screen::start();
    let place = Place::make(flags.data_dir.as_deref())?;
    let shown = block_on(show(&place, flags.keep, &screen));
    place.clean_up()?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

async fn show(place: &Place, keep: bool, screen: &Screen) -> Result<()> {
    screen.say("starting a cluster: API server, store, controllers, scheduler, node, network, DNS");
    let settings = place.settings()?;
    let stop = CancellationToken::new();
    shutdown::on_signal(stop.clone())?;
    let archive = place.directory.join("demo.tar");
    let image = own_image::write(&archive, own_image::Purpose::Demo)?;
    let server = Server::start(&settings, &stop).await?;
    server.write_kubeconfig(&settings.kubeconfig)?;
    server.import(&archive).await?;
    server.ready().await;
    screen.say("the cluster is ready");
    let admin = server.admin();
    tokio::select! {
        told = story::tell(&admin, image, screen) => told?,
        () = stop.cancelled() => {}
    }
    if keep && !stop.is_cancelled() {
        screen.next_steps(&settings.kubeconfig);
        screen.say("the cluster runs until you press Ctrl-C");
        stop.cancelled().await;
    } else {
        screen.try_next();
        stop.cancel();
    }
    server.finish().await
}

/// The directory of a throw-away cluster.
struct Place {
    directory: PathBuf,
    /// Made here, so removed here.
    own: bool,
}

impl Place {
    fn make(wanted: Option<&Path>) -> Result<Self> {
        let directory = match wanted {
            Some(directory) => directory.to_owned(),
            None => std::env::temp_dir().join(format!("stead-quickstart-{}", std::process::id())),
        };
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self { directory, own: wanted.is_none() })
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The settings of a server with default flags but for its places.
    fn settings(&self) -> Result<Settings> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let (data, kubeconfig) = (self.data_dir(), self.directory.join("kubeconfig.yaml"));
        let words = ["stead", "server", "--https-listen-port", &port].map(std::ffi::OsString::from);
        let places = ["--data-dir".into(), data.into(), "--write-kubeconfig".into(), kubeconfig.into()];
        let stead = Stead::try_parse_from(words.into_iter().chain(places))?;
        match stead.command {
            Command::Server(flags) => Settings::from_flags(ServerFlags { ..flags }),
            _ => anyhow::bail!("the server's flags were not understood"),
        }
    }

    /// Stops what still runs, and removes the directory if it was made here.
    fn clean_up(&self) -> Result<()> {
        kill_all::remove(&self.data_dir())?;
        if self.own {
            std::fs::remove_dir_all(&self.directory)?;
        }
        Ok(())
    }
}
