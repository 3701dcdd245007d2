//! `stead image`: the node's image store, with or without a running server.

use std::process::ExitCode;

use anyhow::{Context, Result};
use stead_runtime::Image;

use crate::arguments::{ImageCommand, ImageFlags};
use crate::node::engine_options;
use crate::server::block_on;
use crate::{machine, own_image};

pub(crate) fn run(flags: ImageFlags) -> Result<ExitCode> {
    if let ImageCommand::Archive { file } = &flags.what {
        println!("wrote {} to {}", own_image::write(file, own_image::Purpose::Any)?, file.display());
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(machine::is_root(), "the image store belongs to root: use sudo");
    block_on(async {
        let registries = flags.private_registry.exists().then_some(flags.private_registry);
        let store = stead_runtime::embedded::open_images(engine_options(&flags.data_dir, registries))?;
        match flags.what {
            ImageCommand::Import { archives } => {
                for archive in archives {
                    let images = store.import(archive.clone()).await.with_context(|| archive.display().to_string())?;
                    images.iter().for_each(|image| println!("imported {}", image.references.join(", ")));
                }
            }
            ImageCommand::Pull { reference } => {
                let image = store.pull(&reference, None).await?;
                println!("pulled {} ({})", image.references.join(", "), image.id);
            }
            ImageCommand::Ls => print!("{}", table(&store.list())),
            ImageCommand::Rm { reference } => {
                store.remove(&reference).await?;
                println!("removed {reference}");
            }
            // Needs no store: done above.
            ImageCommand::Archive { .. } => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(images: &[Image]) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for image in images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let size = format!("{:.1}MB", image.size_bytes as f64 / 1e6);
        rows.extend(image.references.iter().map(|reference| [reference.clone(), id.clone(), size.clone()]));
    }
    rows.sort();
    rows.insert(0, ["IMAGE".to_owned(), "IMAGE ID".to_owned(), "SIZE".to_owned()]);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0) + 3;
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[name, id, size]| format!("{name:first$}{id:second$}{size}\n")).collect()
}
