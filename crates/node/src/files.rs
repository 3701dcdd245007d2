//! The small files that every pod gets: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`, and the names in them
//! (upstream: `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/network/dns/dns.go`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig};
use stead_podlife::spec;

/// Limits of resolv.conf that upstream keeps to.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// The kernel's limit for a host name.
const HOSTNAME_BYTES_MAX: usize = 64;

/// A pod's own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Short name, as in /etc/hosts.
    pub short: String,
    /// `web-0.nginx.default.svc.cluster.local`, for a pod with a subdomain.
    pub full: Option<String>,
    /// What the kernel is told.
    pub kernel: String,
}

/// Names of a pod that has its own network.
///
/// # Errors
/// When the full name is wanted as host name and is longer than the kernel allows.
pub(crate) fn names(pod: &Pod, cluster_domain: &str) -> Result<Names, String> {
    let (name, namespace, _) = spec::identity(pod);
    let pod_spec = spec::pod_spec(pod);
    if let Some(own) = pod_spec.hostname_override.as_deref().filter(|own| !own.is_empty()) {
        return Ok(Names { short: own.to_owned(), full: None, kernel: own.to_owned() });
    }
    let wanted = pod_spec.hostname.as_deref().filter(|hostname| !hostname.is_empty()).unwrap_or(name);
    let short = wanted.get(..63.min(wanted.len())).unwrap_or(wanted).trim_end_matches(['-', '.']).to_owned();
    let subdomain = pod_spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    let full = subdomain.map(|subdomain| format!("{short}.{subdomain}.{namespace}.svc.{cluster_domain}"));
    let kernel = match (&full, pod_spec.set_hostname_as_fqdn) {
        (Some(full), Some(true)) if full.len() > HOSTNAME_BYTES_MAX => {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({HOSTNAME_BYTES_MAX} characters is the max, {} characters requested)",
                full.len()
            ));
        }
        (Some(full), Some(true)) => full.clone(),
        _ => short.clone(),
    };
    Ok(Names { short, full, kernel })
}

/// `/etc/hosts` of a pod with its own network.
#[must_use]
pub(crate) fn hosts(ips: &[IpAddr], names: &Names, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        text += &match &names.full {
            Some(full) => format!("{ip}\t{full}\t{}\n", names.short),
            None => format!("{ip}\t{}\n", names.short),
        };
    }
    text + &host_aliases(aliases)
}

/// `/etc/hosts` of a pod in the host's network.
#[must_use]
pub(crate) fn hosts_of_host(host_file: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host_file}{}", host_aliases(aliases))
}

fn host_aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let line =
        |alias: &HostAlias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    format!("\n# Entries added by HostAliases.\n{}", aliases.iter().map(line).collect::<String>())
}

/// What resolvers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace| words.map(str::to_owned).collect::<Vec<_>>();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => resolver.searches = rest(words),
                Some("options") => resolver.options = rest(words),
                _ => {}
            }
        }
        resolver.searches.retain(|search| search != ".");
        resolver
    }

    /// Writes a resolv.conf.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for nameserver in &self.nameservers {
            text += &format!("nameserver {nameserver}\n");
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }

    fn add(&mut self, config: &PodDNSConfig) {
        for nameserver in config.nameservers.iter().flatten() {
            push_new(&mut self.nameservers, nameserver);
        }
        for search in config.searches.iter().flatten() {
            push_new(&mut self.searches, search);
        }
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            self.options.retain(|known| known.split(':').next() != Some(&name));
            self.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
}

fn push_new(list: &mut Vec<String>, one: &str) {
    if !list.iter().any(|known| known == one) {
        list.push(one.to_owned());
    }
}

/// The resolver of a pod by its `dnsPolicy` and `dnsConfig`.
#[must_use]
pub(crate) fn resolver(pod: &Pod, host: &Resolver, cluster_dns: &[IpAddr], cluster_domain: &str) -> Resolver {
    let pod_spec = spec::pod_spec(pod);
    let host_network = pod_spec.host_network.unwrap_or(false);
    let cluster = match pod_spec.dns_policy.as_deref() {
        Some("ClusterFirstWithHostNet") => !cluster_dns.is_empty(),
        Some("None" | "Default") => false,
        _ => !host_network && !cluster_dns.is_empty(),
    };
    let mut resolver = match pod_spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        _ if cluster => of_cluster(pod, host, cluster_dns, cluster_domain),
        _ => host.clone(),
    };
    if let Some(config) = &pod_spec.dns_config {
        resolver.add(config);
    }
    resolver.nameservers.truncate(NAMESERVERS_MAX);
    resolver.searches.truncate(SEARCHES_MAX);
    resolver
}

fn of_cluster(pod: &Pod, host: &Resolver, cluster_dns: &[IpAddr], domain: &str) -> Resolver {
    let (_, namespace, _) = spec::identity(pod);
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    for search in &host.searches {
        push_new(&mut searches, search);
    }
    Resolver {
        nameservers: cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let value = json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"}, "spec": spec});
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_pod_of_a_set_knows_its_full_name() {
        let pod = pod(json!({"hostname": "web-0", "subdomain": "nginx", "containers": []}));
        let names = names(&pod, "cluster.local").expect("names");
        let text = hosts(&[IpAddr::from([10, 42, 0, 5])], &names, &[]);
        assert!(text.ends_with("10.42.0.5\tweb-0.nginx.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert_eq!(names.kernel, "web-0");
    }

    #[test]
    fn aliases_come_last() {
        let names = Names { short: "p".to_owned(), full: None, kernel: "p".to_owned() };
        let alias = HostAlias { ip: "1.2.3.4".to_owned(), hostnames: Some(vec!["a".to_owned(), "b".to_owned()]) };
        let text = hosts(&[IpAddr::from([10, 42, 0, 5])], &names, &[alias]);
        assert!(text.ends_with("10.42.0.5\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn the_resolver_follows_the_policy() {
        let host = Resolver::parse("# c\nsearch corp.example .\nnameserver 9.9.9.9\noptions rotate\n");
        let dns = [IpAddr::from([10, 43, 0, 10])];
        let text = |spec| resolver(&pod(spec), &host, &dns, "cluster.local").text();
        assert_eq!(
            text(json!({"dnsPolicy": "ClusterFirst", "containers": []})),
            "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.43.0.10\noptions ndots:5\n"
        );
        let of_host = "search corp.example\nnameserver 9.9.9.9\noptions rotate\n";
        assert_eq!(text(json!({"dnsPolicy": "Default", "containers": []})), of_host);
        assert_eq!(text(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true, "containers": []})), of_host);
        let own = json!({"dnsPolicy": "None", "containers": [],
            "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(text(own), "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n");
    }
}
