//! Reading and writing the files of the certificate directory: whole files, keys with mode 600, written then renamed.

use std::fmt::Display;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Pair, PkiError};

const DIR_MODE: u32 = 0o700;
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| io(dir, e))
}

/// The certificate and key called `name`, or `None` when neither is there yet.
pub(super) fn read_pair(dir: &Path, name: &str) -> Result<Option<Pair>, PkiError> {
    let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
    match (read(dir, &crt)?, read(dir, &key)?) {
        (Some(cert_pem), Some(key_pem)) => Ok(Some(Pair { cert_pem, key_pem })),
        // The key is written first: a crash between the two leaves a key that nobody has used.
        (None, _) => Ok(None),
        (Some(_), None) => Err(broken(dir, &crt, "certificate", &format!("its private key {key} is missing"))),
    }
}

pub(super) fn write_pair(dir: &Path, name: &str, pair: Pair) -> Result<Pair, PkiError> {
    write_secret(dir, &format!("{name}.key"), &pair.key_pem)?;
    write(dir, &format!("{name}.crt"), &pair.cert_pem, PUBLIC_MODE)?;
    Ok(pair)
}

pub(super) fn read(dir: &Path, file: &str) -> Result<Option<String>, PkiError> {
    let path = dir.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(broken(dir, file, "PEM file", &"it is not text")),
        Err(e) => Err(io(&path, e)),
    }
}

pub(super) fn write_secret(dir: &Path, file: &str, text: &str) -> Result<(), PkiError> {
    write(dir, file, text, SECRET_MODE)
}

fn write(dir: &Path, file: &str, text: &str, mode: u32) -> Result<(), PkiError> {
    let path = dir.join(file);
    let temporary = dir.join(format!(".{file}.new"));
    let written = (|| {
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(dir)?.sync_all()
    })();
    written.map_err(|e| io(&path, e))
}

pub(super) fn broken(dir: &Path, file: &str, what: &'static str, why: &dyn Display) -> PkiError {
    PkiError::Broken { path: dir.join(file), dir: dir.to_owned(), what, why: why.to_string() }
}

fn io(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::Io { path: path.to_owned(), source }
}
