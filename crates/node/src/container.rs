//! From a container of the pod to what the engine is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SeccompProfile, SecurityContext, VolumeMount};
use stead_podlife::{cgroup, spec};
use stead_runtime::{ContainerConfig, Image, Mount, Propagation, Resources, Seccomp, Security};

use crate::context::Context;
use crate::env;
use crate::expand::expand;
use crate::files;
use crate::ledger;
use crate::objects::{Kind, Reference};
use crate::surroundings;
use crate::volumes::{blocking, mount_subpath, unmount_below};

/// Files that all containers of a pod share: name in the pod's directory, path in the container.
pub(crate) const POD_FILES: [(&str, &str); 3] =
    [("etc-hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")];
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Everything the engine has to know of the container.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub(crate) async fn config(
    context: &Context,
    container: &Container,
    attempt: u32,
    image: &Image,
) -> Result<ContainerConfig, String> {
    check_non_root(context, container, image)?;
    let env = environment(context, container).await?;
    let value = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let words = |list: &Option<Vec<String>>| list.iter().flatten().map(|word| expand(word, value)).collect::<Vec<_>>();
    let termination_log = termination_log(context, container, attempt).await?;
    let mut mounts = volume_mounts(context, container, &value).await?;
    mounts.extend(pod_files(context, container).await?);
    mounts.push(bind(&termination_log, container.termination_message_path.as_deref().unwrap_or(TERMINATION_LOG)));
    // A mount below another one has to come after it.
    mounts.sort_by_key(|mount| mount.container_path.components().count());
    let limits = cgroup::container_limits(&context.pod, container, context.node.capacity.memory_bytes);
    let processes_of = target(context, container).await?;
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        labels: labels(context, container),
        image: image.id.clone(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        env,
        mounts,
        devices: Vec::new(),
        resources: resources(&limits),
        security: security(context, container),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        termination_message_path: Some(termination_log),
        processes_of,
    })
}

/// The container whose processes an ephemeral one is to see.
async fn target(context: &Context, container: &Container) -> Result<Option<String>, String> {
    let own = spec::ephemeral_containers(&context.pod).iter().find(|one| one.name == container.name);
    let Some(name) = own.and_then(|one| one.target_container_name.as_deref()).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let found = context.node.running(&context.pod, name).await;
    found.map(|found| Some(found.id)).map_err(|_| format!("unable to find target container {name}"))
}

fn labels(context: &Context, container: &Container) -> BTreeMap<String, String> {
    let (name, namespace, uid) = spec::identity(&context.pod);
    let pairs = [
        (ledger::POD_NAME, name.to_owned()),
        (ledger::POD_NAMESPACE, namespace.to_owned()),
        (ledger::POD_UID, uid.to_owned()),
        (ledger::CONTAINER_NAME, container.name.clone()),
        (ledger::CONTAINER_HASH, spec::hash(container)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[must_use]
pub(crate) fn resources(limits: &cgroup::Limits) -> Resources {
    Resources {
        cpu_shares: limits.cpu_shares,
        cpu_quota_micros: limits.cpu_quota_micros,
        cpu_period_micros: limits.cpu_period_micros,
        memory_limit_bytes: limits.memory_bytes,
        pids_limit: None,
        oom_score_adj: limits.oom_score_adj,
    }
}

async fn environment(context: &Context, container: &Container) -> Result<Vec<(String, String)>, String> {
    let (_, namespace, uid) = spec::identity(&context.pod);
    let (config_maps, secrets) = env::needed(container);
    let mut sources = env::Sources::default();
    let get = async |kind: Kind, name: &str| {
        let reference = Reference { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        context.node.objects.get(&reference, uid, &context.inbox).await
    };
    for name in config_maps {
        let data = get(Kind::ConfigMap, &name).await;
        let text = |(key, value): (&String, &Vec<u8>)| (key.clone(), String::from_utf8_lossy(value).into_owned());
        sources.config_maps.insert(name, data.map(|data| data.iter().map(text).collect()));
    }
    for name in secrets {
        let data = get(Kind::Secret, &name).await;
        sources.secrets.insert(name, data.map(|data| (*data).clone()));
    }
    let links = spec::pod_spec(&context.pod).enable_service_links.unwrap_or(true);
    let services = env::of_services(&context.node.services.list(), namespace, links);
    env::environment(&context.pod, container, &surroundings(&context.node, &context.pod), &services, &sources)
}

/// The file that becomes the termination message. Everyone may write to it.
async fn termination_log(context: &Context, container: &Container, attempt: u32) -> Result<PathBuf, String> {
    let dir = context.node.config.pod_dir(&context.uid).join("containers").join(&container.name);
    let path = dir.join(format!("{attempt}.termination"));
    let made = path.clone();
    blocking(move || {
        use std::os::unix::fs::PermissionsExt;
        let failed = |error: std::io::Error| format!("cannot make {}: {error}", made.display());
        std::fs::create_dir_all(&dir).map_err(failed)?;
        std::fs::write(&made, b"").map_err(failed)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o666)).map_err(failed)
    })
    .await?;
    Ok(path)
}

async fn volume_mounts(
    context: &Context,
    container: &Container,
    value: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = context.mounted.lock().paths.get(&mount.name).cloned();
        let volume = volume.ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        let host_path = match sub_path(mount, value)? {
            None => volume,
            Some(sub) => {
                let target = context.node.config.pod_dir(&context.uid).join("volume-subpaths");
                let target = target.join(&mount.name).join(&container.name).join(index.to_string());
                blocking(move || {
                    // One left by the attempt before.
                    unmount_below(&target)?;
                    mount_subpath(&volume, &sub, &target)
                })
                .await?
            }
        };
        mounts.push(Mount {
            host_path,
            container_path: absolute(&mount.mount_path),
            read_only: mount.read_only.unwrap_or(false),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok(mounts)
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

fn sub_path(mount: &VolumeMount, value: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let expanded = expand(expression, value);
        if expanded.contains("$(") {
            return Err(format!("missing value for \"{expression}\""));
        }
        return Ok(Some(expanded));
    }
    Ok(mount.sub_path.clone().filter(|text| !text.is_empty()))
}

fn bind(host_path: &Path, container_path: &str) -> Mount {
    Mount {
        host_path: host_path.to_owned(),
        container_path: absolute(container_path),
        read_only: false,
        propagation: Propagation::Private,
    }
}

/// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`, unless the pod brings its own.
async fn pod_files(context: &Context, container: &Container) -> Result<Vec<Mount>, String> {
    let config = &context.node.config;
    let pod_spec = spec::pod_spec(&context.pod);
    let host_network = pod_spec.host_network.unwrap_or(false);
    let around = surroundings(&context.node, &context.pod);
    let aliases = pod_spec.host_aliases.clone().unwrap_or_default();
    let names = files::names(&context.pod, &config.cluster_domain)?;
    let pod = context.pod.clone();
    let (dns, domain, host_resolv) =
        (config.cluster_dns.clone(), config.cluster_domain.clone(), config.resolv_conf.clone());
    let (dir, host_name) = (config.pod_dir(&context.uid), config.name.clone());
    let made = dir.clone();
    blocking(move || {
        let hosts = if host_network {
            files::hosts_of_host(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), &aliases)
        } else {
            files::hosts(&around.pod_ips, &names, &aliases)
        };
        let host = files::Resolver::parse(&std::fs::read_to_string(host_resolv).unwrap_or_default());
        let resolver = files::resolver(&pod, &host, &dns, &domain).text();
        let hostname = if host_network { host_name } else { names.kernel };
        for (name, text) in [("etc-hosts", hosts), ("resolv.conf", resolver), ("hostname", format!("{hostname}\n"))] {
            let path = dir.join(name);
            // Written once: a container that changed its file keeps the change over a restart of its neighbour.
            if !path.exists() {
                std::fs::create_dir_all(&dir)
                    .and_then(|()| std::fs::write(&path, text))
                    .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
            }
        }
        Ok(())
    })
    .await?;
    let own: Vec<PathBuf> = container.volume_mounts.iter().flatten().map(|mount| absolute(&mount.mount_path)).collect();
    let wanted = POD_FILES.into_iter().filter(|(_, path)| !own.contains(&PathBuf::from(path)));
    Ok(wanted.map(|(name, path)| bind(&made.join(name), path)).collect())
}

/// The container's own answer, else the pod's.
fn either<T>(
    container: &Container,
    pod: Option<&PodSecurityContext>,
    own: fn(&SecurityContext) -> Option<T>,
    of_pod: fn(&PodSecurityContext) -> Option<T>,
) -> Option<T> {
    container.security_context.as_ref().and_then(own).or_else(|| pod.and_then(of_pod))
}

fn security(context: &Context, container: &Container) -> Security {
    let pod = spec::pod_spec(&context.pod).security_context.as_ref();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.unwrap_or_default();
    let add = capabilities.add.unwrap_or_default();
    let mut groups = pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(pod.and_then(|pod| pod.fs_group));
    let is_admin = add.iter().any(|name| name.trim_start_matches("CAP_") == "SYS_ADMIN" || name == "ALL");
    let profile = either(container, pod, |own| own.seccomp_profile.clone(), |pod| pod.seccomp_profile.clone());
    Security {
        run_as_user: either(container, pod, |own| own.run_as_user, |pod| pod.run_as_user),
        run_as_group: either(container, pod, |own| own.run_as_group, |pod| pod.run_as_group),
        supplemental_groups: groups,
        privileged,
        read_only_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        allow_privilege_escalation: privileged || own.allow_privilege_escalation.unwrap_or(is_admin),
        add_capabilities: add,
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(context, profile) },
        unmasked_proc: privileged || own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

fn seccomp(context: &Context, profile: Option<SeccompProfile>) -> Seccomp {
    match profile {
        Some(SeccompProfile { type_, .. }) if type_ == "Unconfined" => Seccomp::Unconfined,
        Some(SeccompProfile { type_, localhost_profile: Some(path) }) if type_ == "Localhost" => {
            Seccomp::Localhost(context.node.config.data_dir.join("seccomp").join(path))
        }
        _ => Seccomp::RuntimeDefault,
    }
}

/// `runAsNonRoot` with upstream's words.
fn check_non_root(context: &Context, container: &Container, image: &Image) -> Result<(), String> {
    let pod = spec::pod_spec(&context.pod).security_context.as_ref();
    if either(container, pod, |own| own.run_as_non_root, |pod| pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", spec::full_name(&context.pod), container.name);
    match either(container, pod, |own| own.run_as_user, |pod| pod.run_as_user) {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image.user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        )),
    }
}
