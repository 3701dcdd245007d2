//! Root file systems from Debian packages, unpacked without running any of their scripts.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Recipe;

/// Libraries that packages of their own maintenance scripts pull in; no program here links them.
const UNUSED_LIBRARIES: &[&str] = &[
    "perl",
    "libperl",
    "libpam",
    "libaudit",
    "libsemanage",
    "libfile-find",
    "libnumber",
    "libtext",
    "libnewt",
    "libslang",
    "libdebian-installer",
    "libreadline",
    "libgdbm",
    "libdb5",
    "libelogind",
    "libsepol",
    "libcap-ng",
];
/// Parts of a package that no test reads.
const UNUSED_PATHS: &[&str] =
    &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion"];

/// Makes `root` the file system that `recipe` describes.
pub(super) fn unpack(recipe: &Recipe, cache: &Path, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    make_skeleton(root)?;
    for package in wanted(recipe)? {
        extract(&fetch(&package, cache)?, root)?;
    }
    for path in recipe.without {
        fs::remove_file(root.join(path)).with_context(|| format!("{path} is to be left out"))?;
    }
    for unused in UNUSED_PATHS {
        let path = root.join(unused);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    link_busybox(root)?;
    for (path, mode) in recipe.directories {
        let path = root.join(path);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    for (path, mode, content) in recipe.files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}

/// Unpacks an archive through the links of the merged-/usr layout (`dpkg-deb -x` would replace them by directories).
fn extract(archive: &Path, root: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped()).spawn()?;
    let files = dpkg.stdout.take().context("stdout is piped")?;
    run(Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(root).stdin(files))?;
    if !dpkg.wait()?.success() {
        bail!("{} is not a Debian package", archive.display());
    }
    Ok(())
}

/// The merged-/usr layout, accounts and the few files that every program expects.
fn make_skeleton(root: &Path) -> Result<()> {
    for directory in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "tmp",
        "root",
        "home",
        "var/tmp",
        "run",
        "proc",
        "sys",
        "dev",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for sticky in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(sticky), fs::Permissions::from_mode(0o1777))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\nredis:x:999:999::/data:/bin/sh\nmysql:x:998:998::/var/lib/mysql:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:999:\nmysql:x:998:\nnogroup:x:65534:\n",
    )?;
    Ok(())
}

fn link_busybox(root: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    if !busybox.exists() {
        return Ok(());
    }
    let output = Command::new(&busybox).arg("--list").output().context("busybox --list")?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let present = ["usr/bin", "usr/sbin"].iter().any(|d| root.join(d).join(applet).symlink_metadata().is_ok());
        if !present {
            symlink("busybox", root.join("usr/bin").join(applet))?;
        }
    }
    Ok(())
}

fn wanted(recipe: &Recipe) -> Result<BTreeSet<String>> {
    if recipe.complete {
        return Ok(recipe.packages.iter().map(|&name| name.to_owned()).collect());
    }
    closure(recipe.packages)
}

/// The packages themselves and every library package that they need.
fn closure(packages: &[&str]) -> Result<BTreeSet<String>> {
    let output = Command::new("apt-cache")
        .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"])
        .args(["--no-replaces", "--no-enhances"])
        .args(packages)
        .output()
        .context("apt-cache (the test images need Debian's package manager)")?;
    let mut wanted: BTreeSet<String> = packages.iter().map(|&name| name.to_owned()).collect();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.trim();
        let used = name.starts_with("lib") || name == "zlib1g";
        if !line.starts_with([' ', '|', '<']) && used && !UNUSED_LIBRARIES.iter().any(|unused| name.starts_with(unused))
        {
            wanted.insert(name.to_owned());
        }
    }
    Ok(wanted)
}

/// The package's archive, from the cache or from Debian.
fn fetch(package: &str, cache: &Path) -> Result<PathBuf> {
    let directory = cache.join(package);
    if let Some(found) = archive_in(&directory)? {
        return Ok(found);
    }
    fs::create_dir_all(&directory)?;
    run(Command::new("apt-get").args(["download", "-q", package]).current_dir(&directory))?;
    archive_in(&directory)?.with_context(|| format!("apt-get download {package} left no archive"))
}

fn archive_in(directory: &Path) -> Result<Option<PathBuf>> {
    if !directory.exists() {
        return Ok(None);
    }
    let mut archives: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    archives.sort();
    Ok(archives.pop())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
