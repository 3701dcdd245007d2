//! `pods/NAME/proxy` and `services/NAME/proxy`: a request passed on to a port of a pod. The way to the pod is the one to its
//! node, which connects to the pod's address; so pods of other machines are reached as those of this one.
//!
//! Source of behaviour and texts: `ResourceLocation` in `pkg/registry/core/pod` and `pkg/registry/core/service`, and
//! `k8s.io/apimachinery/pkg/util/proxy`.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use stead_api::kinds;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use super::pages::{Links, clean};
use super::passing::{self, Sent, plain_headers, upgrade_headers};
use super::present;
use crate::body::ApiBody;
use crate::chain::{Call, ClientAddress, no_body};
use crate::response::Answer;
use crate::server::ApiServer;
use crate::verbs::Target;

/// What the node is asked to upgrade to: the bytes of the connection to the pod.
const BYTES_PROTOCOL: &str = "stead-bytes";
/// Error texts of nodes are read up to this many bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Larger pages pass as they are, their links unchanged.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What stays as it is in a path (upstream's `net/url` escapes all others).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_URI: &str = "x-forwarded-uri";
/// Whom browsers let at an answer is this server's to say.
const CORS_HEADERS: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// Serves a request for either kind.
pub(super) async fn proxy(server: &ApiServer, target: &Target, rest: &str, mut call: Call) -> Result<Answer, ApiError> {
    if call.query.find("dryRun").is_some() {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let place = match target.kind.plural {
        "services" => of_service(server, target).await?,
        _ => of_pod(server, target).await?,
    };
    let outer = call.parts.uri.path();
    let inner = inner_path(rest, outer.ends_with('/'));
    let prefix = format!("/api/v1/namespaces/{}/{}/{}/proxy", target.namespace, target.kind.plural, target.name);
    if wants_upgrade(call.headers()) {
        return upgraded(server, &place, &inner, &mut call).await;
    }
    if inner.is_empty() && matches!(call.parts.method, Method::GET | Method::HEAD) {
        return moved(outer, call.parts.uri.query());
    }
    let links = Links { prefix, source: place.host(), asked: asked_host(&call).unwrap_or_default() };
    let sent = passed(server, &place, &inner, &links, &call).await;
    let sent = sent.map_err(|why| unavailable(format!("error trying to reach service: {why}")))?;
    shown(sent.pass_on(), &links, &call.parts.method).await
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Self { tls: scheme == "https", name, port })
    }

    /// The same request for the object that it names.
    fn of(&self, target: &Target) -> Target {
        Target { name: self.name.to_owned(), ..target.clone() }
    }
}

/// A port of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    node: String,
    namespace: String,
    pod: String,
    ip: IpAddr,
    port: String,
    tls: bool,
}

impl Place {
    fn host(&self) -> String {
        match self.ip {
            IpAddr::V4(ip) => format!("{ip}:{}", self.port),
            IpAddr::V6(ip) => format!("[{ip}]:{}", self.port),
        }
    }
}

async fn of_pod(server: &ApiServer, target: &Target) -> Result<Place, ApiError> {
    let bad = || ApiError::bad_request(format!("invalid pod request {:?}", target.name));
    let asked = Asked::parse(&target.name).ok_or_else(bad)?;
    let pod = present(server, &asked.of(target)).await?;
    let port = if asked.port.is_empty() { first_port(&pod, asked.tls) } else { asked.port.to_owned() };
    let ip = addresses(&pod).next().and_then(|ip| ip.parse().ok()).filter(reachable);
    let ip = ip.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    Ok(place(target, &pod, asked.name, ip, port, asked.tls))
}

fn place(target: &Target, pod: &Value, name: &str, ip: IpAddr, port: String, tls: bool) -> Place {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
    Place { node, namespace: target.namespace.clone(), pod: name.to_owned(), ip, port, tls }
}

/// The first port that a container of the pod declares, else the scheme's own.
fn first_port(pod: &Value, tls: bool) -> String {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let declared = containers.filter_map(|one| one["ports"][0]["containerPort"].as_u64()).next();
    declared.unwrap_or(if tls { 443 } else { 80 }).to_string()
}

fn addresses(pod: &Value) -> impl Iterator<Item = &str> {
    pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|one| one["ip"].as_str())
}

/// An address that may be a pod's (Go's "global unicast").
fn reachable(ip: &IpAddr) -> bool {
    let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !special
        && match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        }
}

async fn of_service(server: &ApiServer, target: &Target) -> Result<Place, ApiError> {
    let bad = || ApiError::bad_request(format!("invalid service request {:?}", target.name));
    let asked = Asked::parse(&target.name).ok_or_else(bad)?;
    let port = match asked.port.parse::<i64>() {
        Ok(number) => port_name(&present(server, &asked.of(target)).await?, number)
            .ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", asked.name)))?,
        Err(_) => asked.port.to_owned(),
    };
    let kind =
        kinds::by_resource("", "v1", "endpoints").ok_or_else(|| ApiError::internal("endpoints are not served"))?;
    let endpoints = present(server, &Target { kind, ..asked.of(target) }).await?;
    let subsets = endpoints["subsets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if subsets.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {:?}", asked.name)));
    }
    for (subset, number) in turned(subsets).filter_map(|subset| Some((subset, port_number(subset, &port)?))) {
        let addresses = subset["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        for address in turned(addresses) {
            if let Some(place) = of_address(server, target, address, number, asked.tls).await? {
                return Ok(place);
            }
        }
    }
    Err(unavailable(format!("no endpoints available for service {:?}", target.name)))
}

/// The name of a Service's port with this number.
fn port_name(service: &Value, number: i64) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let port = ports.iter().find(|port| port["port"].as_i64() == Some(number))?;
    Some(port["name"].as_str().unwrap_or("").to_owned())
}

fn port_number(subset: &Value, name: &str) -> Option<u64> {
    let ports = subset["ports"].as_array()?;
    ports.iter().find(|port| port["name"].as_str().unwrap_or("") == name)?["port"].as_u64()
}

/// All items, beginning with a random one.
fn turned(items: &[Value]) -> impl Iterator<Item = &Value> {
    let seed = crate::source::uuid().as_u128() % (items.len().max(1) as u128);
    let (before, from) = items.split_at(usize::try_from(seed).unwrap_or(0));
    from.iter().chain(before)
}

/// The place of an address of a Service's endpoints. Only addresses that are pods' now are reached.
async fn of_address(
    server: &ApiServer,
    target: &Target,
    address: &Value,
    port: u64,
    tls: bool,
) -> Result<Option<Place>, ApiError> {
    let reference = &address["targetRef"];
    let (Some(name), Some(ip)) = (reference["name"].as_str(), address["ip"].as_str()) else { return Ok(None) };
    if reference["namespace"] != target.namespace {
        return Ok(None);
    }
    let kind = kinds::by_resource("", "v1", "pods").ok_or_else(|| ApiError::internal("pods are not served"))?;
    let pod = match present(server, &Target { kind, name: name.to_owned(), ..target.clone() }).await {
        Err(error) if error.reason == Reason::NotFound => return Ok(None),
        pod => pod?,
    };
    let its_own = addresses(&pod).any(|one| one == ip);
    let ip = ip.parse().ok().filter(|_| its_own);
    Ok(ip.map(|ip| place(target, &pod, name, ip, port.to_string(), tls)))
}

fn unavailable(text: String) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, text)
}

/// The path at the pod. Empty when nothing follows the sub-resource, not even a slash.
fn inner_path(rest: &str, slash: bool) -> String {
    if rest.is_empty() {
        return if slash { "/" } else { "" }.to_owned();
    }
    let path = clean(&format!("/{rest}{}", if slash { "/" } else { "" }));
    utf8_percent_encode(&path, ESCAPED).to_string()
}

/// A page of a directory has links relative to it, which lead nowhere unless the directory's path ends in a slash.
fn moved(outer: &str, query: Option<&str>) -> Result<Answer, ApiError> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = Response::new(ApiBody::Empty);
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&format!("{outer}/{query}"));
    let location = location.map_err(|_| ApiError::bad_request("the path cannot be redirected"))?;
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION);
    values.iter().any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("upgrade")))
}

fn asked_host(call: &Call) -> Option<String> {
    let host = call.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| call.parts.uri.authority().map(http::uri::Authority::as_str)).map(str::to_owned)
}

/// Tells the pod for whom the request is.
fn forwarded_for(headers: &mut HeaderMap, call: &Call) {
    let Some(ClientAddress(from)) = call.parts.extensions.get::<ClientAddress>() else { return };
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<String> = before.map(str::to_owned).chain([from.to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn with_query(path: &str, call: &Call) -> String {
    let path = if path.is_empty() { "/" } else { path };
    call.parts.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// Sends the request to the pod.
///
/// # Errors
/// A text for the caller when the pod cannot be reached or does not speak HTTP.
async fn passed(server: &ApiServer, place: &Place, inner: &str, links: &Links, call: &Call) -> Result<Sent, String> {
    let mut headers = plain_headers(call.headers());
    forwarded_for(&mut headers, call);
    let uri = format!("{}{inner}", links.prefix);
    headers.insert(FORWARDED_URI, HeaderValue::from_str(&uri).map_err(|error| error.to_string())?);
    send(server, place, inner, headers, call).await
}

async fn send(server: &ApiServer, place: &Place, inner: &str, headers: HeaderMap, call: &Call) -> Result<Sent, String> {
    let io = connect(server, place).await?;
    let host = asked_host(call).unwrap_or_else(|| place.host());
    let method = call.parts.method.clone();
    let request = passing::request(method, &with_query(inner, call), &host, headers, call.take_stream());
    let request = request.map_err(|error| error.to_string())?;
    passing::send(io, request).await.map_err(|error| error.to_string())
}

/// A byte stream to the pod's port, in TLS if that is wanted: the pod's node makes the connection.
async fn connect(server: &ApiServer, place: &Place) -> Result<TokioIo<Upgraded>, String> {
    let Place { namespace, pod, port, tls, .. } = place;
    let port: u16 = port.parse().map_err(|_| format!("dial tcp: lookup tcp/{port}: unknown port"))?;
    let io = server.dial(&place.node).await.map_err(|error| error.to_string())?;
    let path = format!("/podConnect/{namespace}/{pod}/{port}{}", if *tls { "?tls=1" } else { "" });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, BYTES_PROTOCOL)];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let request = passing::request(Method::GET, &path, &place.node, HeaderMap::from_iter(headers), no_body());
    let sent = passing::send(io, request.map_err(|error| error.to_string())?).await;
    let mut answer = sent.map_err(|error| error.to_string())?.answer;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(passing::text(answer.into_body(), ERROR_BYTES_MAX).await);
    }
    hyper::upgrade::on(&mut answer).await.map(TokioIo::new).map_err(|error| error.to_string())
}

/// A request that goes on with another protocol, as WebSockets do.
async fn upgraded(server: &ApiServer, place: &Place, inner: &str, call: &mut Call) -> Result<Answer, ApiError> {
    let mut headers = upgrade_headers(call.headers());
    forwarded_for(&mut headers, call);
    let sent = send(server, place, inner, headers, call).await;
    let sent = sent.map_err(|why| ApiError::new(Reason::Unknown, why))?;
    if sent.switches() {
        return Ok(sent.switch(call.upgrade.take(), server.0.closing.clone()));
    }
    let code = sent.answer.status();
    if code.as_u16() < 400 {
        let text = format!("invalid upgrade response: status code {}", code.as_u16());
        return Err(ApiError::new(Reason::Unknown, text));
    }
    Ok(sent.pass_on())
}

/// The pod's answer as the caller has to see it: its links lead through this server.
async fn shown(mut answer: Answer, links: &Links, method: &Method) -> Result<Answer, ApiError> {
    CORS_HEADERS.iter().for_each(|name| drop(answer.headers_mut().remove(*name)));
    if let Some(location) = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()) {
        if let Some(new) = links.rewrite(location).and_then(|new| HeaderValue::from_str(&new).ok()) {
            answer.headers_mut().insert(header::LOCATION, new);
        }
        return Ok(answer);
    }
    let Some(packed) = page_coding(answer.headers()).filter(|_| *method != Method::HEAD) else { return Ok(answer) };
    let (mut parts, body) = answer.into_parts();
    let page = match whole(body).await {
        Ok(page) => page,
        Err(body) => return Ok(Response::from_parts(parts, body)),
    };
    let rewritten = if packed { packed_page(&page, links) } else { plain_page(&page, links) };
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, ApiBody::full(rewritten.unwrap_or(page))))
}

/// Whether a page is in gzip; `None` when it is no page, or in a form that is not read here.
fn page_coding(headers: &HeaderMap) -> Option<bool> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let page = text(header::CONTENT_TYPE).split(';').next().is_some_and(|kind| kind.trim() == "text/html");
    match text(header::CONTENT_ENCODING) {
        "" if page => Some(false),
        "gzip" if page => Some(true),
        _ => None,
    }
}

/// A body that is not too large; one that is comes back as it was.
async fn whole(mut body: ApiBody) -> Result<Bytes, ApiBody> {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        kept.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if kept.len() > PAGE_BYTES_MAX {
            let rest = body.into_data_stream().filter_map(|frame| async move { frame.ok() });
            let first = futures::stream::iter([Bytes::from(kept)]);
            return Err(ApiBody::frames(first.chain(rest)));
        }
    }
    Ok(kept.into())
}

/// `None` when it is no text.
fn plain_page(page: &Bytes, links: &Links) -> Option<Bytes> {
    std::str::from_utf8(page).ok().map(|page| links.rewrite_page(page).into())
}

/// The same in gzip. A page that is too large when it is unpacked stays as it is.
fn packed_page(page: &Bytes, links: &Links) -> Option<Bytes> {
    let mut text = Vec::new();
    let most = PAGE_BYTES_MAX as u64;
    GzDecoder::new(&page[..]).take(most + 1).read_to_end(&mut text).ok().filter(|size| *size <= PAGE_BYTES_MAX)?;
    let rewritten = plain_page(&text.into(), links)?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&rewritten).ok()?;
    packed.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_with_scheme_and_port() {
        let asked = |tls, name, port| Some(Asked { tls, name, port });
        for (id, want) in [
            ("web", asked(false, "web", "")),
            ("web:80", asked(false, "web", "80")),
            ("http:web:80", asked(false, "web", "80")),
            ("https:web:", asked(true, "web", "")),
            (":web:80", asked(false, "web", "80")),
            ("ftp:web:80", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(Asked::parse(id), want, "{id}");
        }
    }

    #[test]
    fn paths_are_clean_and_escaped() {
        for (rest, slash, want) in [
            ("", false, ""),
            ("", true, "/"),
            ("a/b", false, "/a/b"),
            ("a//b/../c", true, "/a/c/"),
            ("a b?c#d%", false, "/a%20b%3Fc%23d%25"),
            ("../x", false, "/x"),
            ("é", false, "/%C3%A9"),
        ] {
            assert_eq!(inner_path(rest, slash), want, "{rest}");
        }
    }

    #[test]
    fn ports_of_pods_and_addresses() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 81}]}]}});
        assert_eq!((first_port(&pod, true), first_port(&Value::Null, true)), ("81".to_owned(), "443".to_owned()));
        assert_eq!(first_port(&Value::Null, false), "80");
        let ips = ["10.42.0.5", "127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "fd00::1", "fe80::1", "::1"];
        let fine: Vec<&str> = ips.into_iter().filter(|ip| reachable(&ip.parse().expect("an address"))).collect();
        assert_eq!(fine, ["10.42.0.5", "fd00::1"]);
    }
}
