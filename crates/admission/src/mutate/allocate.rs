//! Cluster addresses and node ports of a Service.
//!
//! Source of the rules: `k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go`.

use std::net::IpAddr;

use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::{ApiError, FieldErrors, Path};

use crate::addresses::{self, Protocol};
use crate::context::Context;
use crate::view::{Fill, View};

fn wants_address(service: &Value) -> bool {
    service.text("spec.type") != "ExternalName" && service.text("spec.clusterIP") != "None"
}

fn wants_ports(service: &Value) -> bool {
    match service.text("spec.type") {
        "NodePort" => true,
        "LoadBalancer" => service.flag("spec.allocateLoadBalancerNodePorts") != Some(false),
        _ => false,
    }
}

fn wants_health_port(service: &Value) -> bool {
    service.text("spec.type") == "LoadBalancer" && service.text("spec.externalTrafficPolicy") == "Local"
}

/// An update that leaves out what was allocated keeps it; a change of type drops what the new type cannot have.
pub(super) fn patch(new: &mut Value, old: &Value) {
    let (kind_new, kind_old) = (new.text("spec.type").to_owned(), old.text("spec.type").to_owned());
    let keep_address = wants_address(old) && new.text("spec.clusterIP") != "None" && kind_new != "ExternalName";
    let had_ports = matches!(kind_old.as_str(), "NodePort" | "LoadBalancer");
    let keeps_ports = had_ports && matches!(kind_new.as_str(), "NodePort" | "LoadBalancer");
    let unchanged = |field: &str| crate::view::same(new.at(field), old.at(field));
    let drop_address = kind_new == "ExternalName"
        && kind_old != "ExternalName"
        && (unchanged("spec.clusterIP") || new.text("spec.clusterIP").is_empty());
    let drop_traffic = had_ports && !keeps_ports && unchanged("spec.externalTrafficPolicy");
    let drop_health = wants_health_port(old) && !wants_health_port(new) && unchanged("spec.healthCheckNodePort");
    let keep_health = wants_health_port(old) && wants_health_port(new);
    let Some(spec) = new.at_mut("spec") else { return };
    if keep_address && spec.text("clusterIP").is_empty() {
        spec.put("clusterIP", old.at("spec.clusterIP").clone());
        if spec.items("clusterIPs").is_empty() {
            spec.put("clusterIPs", old.at("spec.clusterIPs").clone());
        }
    }
    if drop_address {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.drop_key(key);
        }
    }
    for port in spec.items_mut("ports") {
        let before = old.items("spec.ports").iter().find(|p| {
            p.int("port") == port.int("port") && p.text("protocol") == port.text("protocol") && p.has("nodePort")
        });
        let Some(before) = before else { continue };
        if keeps_ports {
            port.fill_zero("nodePort", before.at("nodePort").clone());
        } else if port.at("nodePort") == before.at("nodePort") {
            port.drop_key("nodePort");
        }
    }
    if drop_traffic && !matches!(kind_new.as_str(), "NodePort" | "LoadBalancer") {
        spec.drop_key("externalTrafficPolicy");
    }
    if kind_new != "LoadBalancer" {
        spec.drop_key("allocateLoadBalancerNodePorts");
    }
    if kind_new == "ExternalName" && kind_old != "ExternalName" {
        spec.drop_key("internalTrafficPolicy");
    }
    if drop_health {
        spec.drop_key("healthCheckNodePort");
    } else if keep_health {
        spec.fill_zero("healthCheckNodePort", old.at("spec.healthCheckNodePort").clone());
    }
}

pub(super) fn create(kind: &Kind, service: &mut Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    take(kind, service, &json!({}), ctx)
}

pub(super) fn update(kind: &Kind, new: &mut Value, old: &Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    take(kind, new, old, ctx)
}

/// Takes what `service` wants and `old` does not hold; gives all of it back when something fails or nothing is to stay.
fn take(kind: &Kind, service: &mut Value, old: &Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    let mut taken = json!({"spec": {"clusterIPs": [], "ports": []}});
    let result = address(kind, service, old, &mut taken, ctx)
        .and_then(|()| node_ports(kind, service, old, &mut taken, ctx))
        .and_then(|()| health_port(kind, service, old, &mut taken, ctx));
    if result.is_err() || ctx.dry_run {
        addresses::release(ctx.addresses, &taken, None);
    }
    result
}

fn note(taken: &mut Value, list: &str, item: Value) {
    if let Some(spec) = taken.at_mut("spec") {
        super::pod::push(spec, list, item);
    }
}

fn address(
    kind: &Kind,
    service: &mut Value,
    old: &Value,
    taken: &mut Value,
    ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    if !wants_address(service) {
        return Ok(());
    }
    let wanted = service.text("spec.clusterIP").to_owned();
    let ip = if wanted.is_empty() {
        let seed = ctx.seed();
        let why = |e| ApiError::internal(&format!("failed to allocate a serviceIP: {e}"));
        ctx.addresses.allocate_ip(seed).map_err(why)?
    } else {
        // Validation has seen to it that it is an address.
        let Ok(ip) = wanted.parse::<IpAddr>() else { return Ok(()) };
        if addresses::held_ips(old).contains(&ip) {
            return Ok(());
        }
        ctx.addresses.reserve_ip(ip).map_err(|e| {
            let mut errors = FieldErrors::default();
            let shown = json!([wanted]);
            errors.invalid(
                &Path::new("spec").child("clusterIPs"),
                &shown,
                &format!("failed to allocate IP {wanted}: {e}"),
            );
            ApiError::invalid(kind, service.text("metadata.name"), &errors)
        })?;
        ip
    };
    note(taken, "clusterIPs", ip.to_string().into());
    if let Some(spec) = service.at_mut("spec") {
        spec.put("clusterIP", ip.to_string());
        spec.put("clusterIPs", json!([ip.to_string()]));
    }
    Ok(())
}

fn node_ports(
    kind: &Kind,
    service: &mut Value,
    old: &Value,
    taken: &mut Value,
    ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    let allocate = wants_ports(service);
    if !allocate && service.text("spec.type") != "LoadBalancer" {
        return Ok(());
    }
    let name = service.text("metadata.name").to_owned();
    let held = addresses::held_ports(old);
    let mut mine: Vec<(u16, Protocol)> = addresses::held_ports(taken);
    let count = service.items("spec.ports").len();
    for index in 0..count {
        let port = &service.items("spec.ports")[index];
        let protocol = Protocol::parse(port.text("protocol"));
        let number = match port.int("nodePort").filter(|n| *n != 0) {
            Some(wanted) => {
                let same = |(p, of): &&(u16, Protocol)| i64::from(*p) == wanted && *of == protocol;
                if held.iter().chain(&mine).any(|entry| same(&entry)) {
                    continue;
                }
                ctx.addresses.reserve_port(wanted, protocol).map_err(|e| {
                    let mut errors = FieldErrors::default();
                    let path = Path::new("spec").child("ports").index(index).child("nodePort");
                    errors.invalid(&path, &wanted, &e.0);
                    ApiError::invalid(kind, &name, &errors)
                })?;
                u16::try_from(wanted).unwrap_or(0)
            }
            None if allocate => fresh_port(service, index, protocol, &mine, ctx)?,
            None => continue,
        };
        mine.push((number, protocol));
        let protocol = service.items("spec.ports")[index].at("protocol").clone();
        note(taken, "ports", json!({"nodePort": number, "protocol": protocol}));
        if let Some(port) = service.at_mut("spec").and_then(|s| s.items_mut("ports").get_mut(index)) {
            port.put("nodePort", number);
        }
    }
    Ok(())
}

/// The same port of another protocol shares its node port where that is free.
fn fresh_port(
    service: &Value,
    index: usize,
    protocol: Protocol,
    mine: &[(u16, Protocol)],
    ctx: &mut Context<'_>,
) -> Result<u16, ApiError> {
    let ports = service.items("spec.ports");
    let twin = ports.iter().enumerate().find_map(|(i, port)| {
        let number = port.int("nodePort").and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?;
        (i != index && port.int("port") == ports[index].int("port")).then_some(number)
    });
    if let Some(number) = twin
        && !mine.contains(&(number, protocol))
        && ctx.addresses.reserve_port(i64::from(number), protocol).is_ok()
    {
        return Ok(number);
    }
    let seed = ctx.seed();
    let why = |e| ApiError::internal(&format!("failed to allocate a nodePort: {e}"));
    ctx.addresses.allocate_port(&[protocol], seed).map_err(why)
}

fn health_port(
    kind: &Kind,
    service: &mut Value,
    old: &Value,
    taken: &mut Value,
    ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    if !wants_health_port(service) {
        return Ok(());
    }
    let number = match service.int("spec.healthCheckNodePort").filter(|n| *n != 0) {
        Some(wanted) if old.int("spec.healthCheckNodePort") == Some(wanted) => return Ok(()),
        Some(wanted) => {
            ctx.addresses.reserve_port(wanted, Protocol::Tcp).map_err(|e| {
                let mut errors = FieldErrors::default();
                let why = format!("failed to allocate requested HealthCheck NodePort {wanted}: {e}");
                errors.invalid(&Path::new("spec").child("healthCheckNodePort"), &wanted, &why);
                ApiError::invalid(kind, service.text("metadata.name"), &errors)
            })?;
            wanted
        }
        None => {
            let seed = ctx.seed();
            let why = |e| ApiError::internal(&format!("failed to allocate a HealthCheck NodePort: {e}"));
            i64::from(ctx.addresses.allocate_port(&[Protocol::Tcp], seed).map_err(why)?)
        }
    };
    note(taken, "ports", json!({"nodePort": number, "protocol": "TCP"}));
    if let Some(spec) = service.at_mut("spec") {
        spec.put("healthCheckNodePort", number);
    }
    Ok(())
}
