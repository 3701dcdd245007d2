//! What the certificates say, and whether a stored one still serves.

use std::net::IpAddr;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, date_time_ymd,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Pair, PkiError};

const AUTHORITY_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 1;
/// A leaf with less left than this is issued anew when the server starts.
const RENEW_DAYS: i64 = 90;
/// Clocks of other machines may be behind.
const BACKDATE_DAYS: i64 = 1;
/// The same where a certificate holds for hours: when it is renewed is reckoned from its beginning.
const BACKDATE_SHORT: std::time::Duration = std::time::Duration::from_secs(3600);

/// A new self-signed authority.
pub(super) fn authority() -> Result<Pair, PkiError> {
    let failed = |e: rcgen::Error| PkiError::Issue { name: "the authority".into(), why: e.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = base(AUTHORITY_YEARS);
    params.distinguished_name = subject("stead-ca", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// A certificate for a TLS server known by `sans`.
pub(super) fn server(sans: &[String]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(sans.to_vec())
        .map_err(|e| PkiError::Issue { name: sans.join(", "), why: e.to_string() })?;
    let common = base(LEAF_YEARS);
    params.not_before = common.not_before;
    params.not_after = common.not_after;
    params.serial_number = common.serial_number;
    params.distinguished_name = subject("stead-apiserver", &[]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A certificate that authenticates `user` in `groups`, as upstream reads it: CN and O.
pub(super) fn client(user: &str, groups: &[&str]) -> CertificateParams {
    let mut params = base(LEAF_YEARS);
    params.distinguished_name = subject(user, groups);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The same for some hours from now on.
pub(super) fn short_lived(mut params: CertificateParams, hours: i64) -> CertificateParams {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let today = now.date();
    let midnight = date_time_ymd(today.year().into(), today.month().unsigned_abs(), today.day().unsigned_abs());
    let seconds = now.duration_since(&now.start_of_day().unwrap_or_else(|_| now.clone())).as_secs();
    let later = |seconds: i64| std::time::Duration::from_secs(seconds.unsigned_abs());
    params.not_before = midnight + later(seconds) - BACKDATE_SHORT;
    params.not_after = midnight + later(seconds + hours * 3600);
    params
}

pub(super) fn sign(issuer: &Issuer<'static, KeyPair>, name: &str, params: CertificateParams) -> Result<Pair, PkiError> {
    let failed = |e: rcgen::Error| PkiError::Issue { name: name.to_owned(), why: e.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.signed_by(&key, issuer).map_err(failed)?;
    Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// Names and addresses as strings, sorted and without repetition.
pub(super) fn subject_alt_names(names: &[String], addresses: &[IpAddr]) -> Vec<String> {
    let mut all: Vec<String> = names.iter().cloned().chain(addresses.iter().map(ToString::to_string)).collect();
    all.sort();
    all.dedup();
    all
}

pub(super) fn subject(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    for organization in organizations {
        dn.push(DnType::OrganizationName, *organization);
    }
    dn.push(DnType::CommonName, common_name);
    dn
}

/// Whether `cert_pem` certifies `key`.
pub(super) fn check_key(cert_pem: &str, key: &KeyPair) -> Result<(), String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).map_err(|e| e.to_string())?;
    let (_, cert) = X509Certificate::from_der(&pem.contents).map_err(|e| e.to_string())?;
    if cert.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err("it does not belong to the private key beside it".into());
    }
    Ok(())
}

/// Whether a stored leaf is signed by this authority, names what it should and lasts long enough.
pub(super) fn still_serves(cert_pem: &str, issuer: &Issuer<'static, KeyPair>, sans: &[String]) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()) else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(&pem.contents) else { return false };
    let left = cert.validity().not_after.timestamp() - Timestamp::now().as_second();
    left > RENEW_DAYS * 86_400 && signed_by(&cert, issuer) && names_of(&cert) == sans
}

fn signed_by(cert: &X509Certificate<'_>, issuer: &Issuer<'static, KeyPair>) -> bool {
    let signature = &cert.signature_value.data;
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        issuer.key().public_key_raw(),
    );
    key.verify(cert.tbs_certificate.as_ref(), signature).is_ok()
}

fn names_of(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    let mut names: Vec<String> = extension.value.general_names.iter().filter_map(name_of).collect();
    names.sort();
    names
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|a| a.to_string()),
        _ => None,
    }
}

fn base(years: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(today.saturating_sub(BACKDATE_DAYS.days()));
    params.not_after = day(today.saturating_add(years.years()));
    params.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes()));
    params
}
