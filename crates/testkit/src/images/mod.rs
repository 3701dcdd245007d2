//! Test images: the programs that the documents name, from Debian packages, as an OCI layout on disk.
//!
//! No registry can be reached from a test machine, so `redis:6.2-alpine`, `nginx:1.21` and `busybox` are put together from the
//! packages of the same programs and served under their usual names by [`crate::registry`].

mod layout;
mod packages;
mod recipes;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use recipes::{RECIPES, Recipe};

pub(crate) use layout::NAME as NAME_ANNOTATION;

/// Builds every image that is not yet in the layout below `directory` and returns the layout's path.
///
/// What was made of each recipe is written down beside the layout, so that a changed recipe is built anew and nothing else is.
///
/// # Errors
/// When a package cannot be fetched (is `apt-get update` needed?) or the disk is full.
pub fn build_all(directory: &Path) -> Result<PathBuf> {
    let layout = directory.join("layout");
    let complete = directory.join(format!("complete-{}", recipes::fingerprint(RECIPES)));
    if complete.exists() {
        return Ok(layout);
    }
    let mut writer = layout::Writer::create(&layout)?;
    for recipe in RECIPES {
        let made = directory.join(format!("made-{}.json", recipes::fingerprint(std::slice::from_ref(recipe))));
        if let Ok(known) = fs::read(&made) {
            writer.add_known(&known)?;
            continue;
        }
        eprintln!("image {}: from {}", recipe.names[0], recipe.packages.join(", "));
        let root = directory.join("rootfs").join(recipe.names[0].replace(['/', ':'], "_"));
        packages::unpack(recipe, &directory.join("packages"), &root)
            .with_context(|| format!("image {}", recipe.names[0]))?;
        let known = writer.add(recipe, &root)?;
        fs::remove_dir_all(&root)?;
        fs::write(&made, known)?;
    }
    writer.finish()?;
    fs::write(&complete, "")?;
    Ok(layout)
}

/// Writes the images whose name is in `names` as one OCI archive, as `skopeo copy oci-archive:` would.
///
/// # Errors
/// When the layout lacks one of them.
pub fn archive(layout: &Path, names: &[&str], to: &Path) -> Result<()> {
    layout::archive(layout, names, to)
}
