//! The page of a CertificateSigningRequest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Name};

use super::{Page, or_none};
use crate::print::{at, list, pairs};

/// Its fields, and what it asks for.
pub(super) fn describe(page: &mut Page, request: &Value) {
    page.field(0, "Name", at(request, "/metadata/name"));
    for (title, map) in [("Labels", "labels"), ("Annotations", "annotations")] {
        page.field(0, title, or_none(&pairs(&request["metadata"][map]).join(",")));
    }
    page.field(0, "CreationTimestamp", &super::time(&request["metadata"]["creationTimestamp"]));
    page.field(0, "Requesting User", at(request, "/spec/username"));
    if !at(request, "/spec/signerName").is_empty() {
        page.field(0, "Signer", at(request, "/spec/signerName"));
    }
    if let Some(seconds) = request["spec"]["expirationSeconds"].as_i64() {
        let from = jiff::Timestamp::UNIX_EPOCH;
        let to = jiff::Timestamp::from_second(seconds).unwrap_or(from);
        page.field(0, "Requested Duration", &stead_machinery::time::between(from, to));
    }
    page.field(0, "Status", &status(request));
    match subject(at(request, "/spec/request")) {
        Ok(text) => page.text.push_str(&text),
        Err(why) => page.line(0, &format!("Error parsing CSR: {why}")),
    }
}

fn status(request: &Value) -> String {
    let has = |kind: &str| list(request, "/status/conditions").iter().any(|condition| at(condition, "/type") == kind);
    let mut status = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !at(request, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    status
}

/// Whom the certificate is to be for.
fn subject(encoded: &str) -> Result<String, String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|error| error.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let name = &request.certification_request_info.subject;
    let mut page = Page::default();
    page.line(0, "Subject:");
    page.line(0, &format!("\tCommon Name:\t{}", texts(name, "2.5.4.3").join("")));
    page.line(0, &format!("\tSerial Number:\t{}", texts(name, "2.5.4.5").join("")));
    for (title, id) in [
        ("Organization", "2.5.4.10"),
        ("Organizational Unit", "2.5.4.11"),
        ("Country", "2.5.4.6"),
        ("Locality", "2.5.4.7"),
        ("Province", "2.5.4.8"),
        ("StreetAddress", "2.5.4.9"),
        ("PostalCode", "2.5.4.17"),
    ] {
        entry(&mut page, title, &texts(name, id));
    }
    let mut names: [(&str, Vec<String>); 4] = [
        ("DNS Names", Vec::new()),
        ("Email Addresses", Vec::new()),
        ("URIs", Vec::new()),
        ("IP Addresses", Vec::new()),
    ];
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(all) = extension else { continue };
        for name in &all.general_names {
            match name {
                GeneralName::DNSName(name) => names[0].1.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => names[1].1.push((*name).to_owned()),
                GeneralName::URI(uri) => names[2].1.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => names[3].1.extend(address(bytes)),
                _ => {}
            }
        }
    }
    if names.iter().any(|(_, all)| !all.is_empty()) {
        page.line(0, "Subject Alternative Names:");
    }
    names.iter().for_each(|(title, all)| entry(&mut page, title, all));
    Ok(page.text)
}

fn entry(page: &mut Page, title: &str, values: &[String]) {
    if !values.is_empty() {
        page.line(0, &format!("\t{title}:\t{}", values.join("\n\t\t")));
    }
}

/// The values of an attribute of a name.
fn texts(name: &X509Name<'_>, id: &str) -> Vec<String> {
    let attributes = name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == id);
    attributes.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}
