//! What the linker of a release is asked for: functions of the same code are one, and relocations are packed.

use std::process::Command;

/// The first glibc whose start-up code unpacks relocations of a static program.
const UNPACKS: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // Where rustc brings its own linker along, which knows these flags.
    let lld = var("CARGO_CFG_TARGET_ARCH") == "x86_64"
        && var("CARGO_CFG_TARGET_OS") == "linux"
        && var("CARGO_CFG_TARGET_ENV") == "gnu";
    if var("PROFILE") != "release" || !lld {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    if var("HOST") == var("TARGET") && glibc().is_some_and(|version| version >= UNPACKS) {
        println!("cargo:rustc-link-arg-bins=-Wl,--pack-dyn-relocs=relr");
    }
}

/// The glibc of this machine, which is linked in: `ldd (Debian GLIBC 2.36-9) 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.lines().next()?.rsplit(' ').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
