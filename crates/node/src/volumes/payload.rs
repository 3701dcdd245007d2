//! The files of a volume that is made from API objects. Pure: objects in, files out.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};
use stead_podlife::spec;

use crate::downward::{self, Surroundings};
use crate::objects::{Data, Kind, Reference};

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Relative, below the volume.
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
    pub owner: Option<u32>,
}

/// A service account token that a volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenWish {
    pub audience: Option<String>,
    pub expiration_seconds: i64,
}

/// What a volume is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub references: Vec<Reference>,
    pub tokens: Vec<TokenWish>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub data: HashMap<Reference, Data>,
    pub tokens: HashMap<TokenWish, String>,
}

/// Mode of files without one (upstream's default).
const MODE_DEFAULT: i32 = 0o644;
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

/// Whether a volume is made of files from the API.
#[must_use]
pub(crate) fn is_payload(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether it holds what must not reach a disk.
#[must_use]
pub(crate) fn is_secret(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|one| one.sources.iter().flatten());
    volume.secret.is_some()
        || projected.into_iter().any(|one| one.secret.is_some() || one.service_account_token.is_some())
}

fn config_map(namespace: &str, name: &str) -> Reference {
    Reference { kind: Kind::ConfigMap, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn secret(namespace: &str, name: &str) -> Reference {
    Reference { kind: Kind::Secret, namespace: namespace.to_owned(), name: name.to_owned() }
}

#[must_use]
pub(crate) fn needs(pod: &Pod, volume: &Volume) -> Needs {
    let (_, namespace, _) = spec::identity(pod);
    let mut needs = Needs::default();
    needs.references.extend(volume.config_map.as_ref().map(|one| config_map(namespace, &one.name)));
    let secret_name = volume.secret.as_ref().and_then(|one| one.secret_name.as_deref());
    needs.references.extend(secret_name.map(|name| secret(namespace, name)));
    for one in volume.projected.iter().flat_map(|one| one.sources.iter().flatten()) {
        needs.references.extend(one.config_map.as_ref().map(|one| config_map(namespace, &one.name)));
        needs.references.extend(one.secret.as_ref().map(|one| secret(namespace, &one.name)));
        needs.tokens.extend(one.service_account_token.as_ref().map(|one| TokenWish {
            audience: one.audience.clone().filter(|audience| !audience.is_empty()),
            expiration_seconds: one.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT),
        }));
    }
    needs
}

/// All files of the volume.
///
/// # Errors
/// Upstream's text for what is missing; it follows `MountVolume.SetUp failed for volume "x" : `.
pub(crate) fn files(pod: &Pod, volume: &Volume, found: &Found, around: &Surroundings) -> Result<Vec<File>, String> {
    let (_, namespace, _) = spec::identity(pod);
    let mut files = Vec::new();
    if let Some(one) = &volume.config_map {
        let from = Keys {
            what: "configmap",
            name: &one.name,
            reference: config_map(namespace, &one.name),
            items: one.items.as_deref(),
            optional: one.optional,
        };
        from.add(&mut files, found, mode(one.default_mode))?;
    }
    if let Some(one) = &volume.secret {
        let name = one.secret_name.as_deref().unwrap_or_default();
        let from = Keys {
            what: "secret",
            name,
            reference: secret(namespace, name),
            items: one.items.as_deref(),
            optional: one.optional,
        };
        from.add(&mut files, found, mode(one.default_mode))?;
    }
    if let Some(one) = &volume.downward_api {
        add_downward(&mut files, pod, one.items.as_deref(), around, mode(one.default_mode))?;
    }
    if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for one in projected.sources.iter().flatten() {
            if let Some(one) = &one.config_map {
                let from = Keys {
                    what: "configmap",
                    name: &one.name,
                    reference: config_map(namespace, &one.name),
                    items: one.items.as_deref(),
                    optional: one.optional,
                };
                from.add(&mut files, found, mode)?;
            }
            if let Some(one) = &one.secret {
                let from = Keys {
                    what: "secret",
                    name: &one.name,
                    reference: secret(namespace, &one.name),
                    items: one.items.as_deref(),
                    optional: one.optional,
                };
                from.add(&mut files, found, mode)?;
            }
            if let Some(one) = &one.downward_api {
                add_downward(&mut files, pod, one.items.as_deref(), around, mode)?;
            }
            if let Some(one) = &one.service_account_token {
                add_token(&mut files, pod, one, found, mode)?;
            }
            if one.cluster_trust_bundle.is_some() || one.pod_certificate.is_some() {
                return Err(
                    "projected clusterTrustBundle and podCertificate sources are not offered by this node".to_owned()
                );
            }
        }
    }
    Ok(files)
}

fn mode(mode: Option<i32>) -> u32 {
    u32::try_from(mode.unwrap_or(MODE_DEFAULT)).unwrap_or(0o644) & 0o777
}

/// Keys of a config map or secret, all or chosen ones.
struct Keys<'a> {
    what: &'static str,
    name: &'a str,
    reference: Reference,
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
}

impl Keys<'_> {
    fn add(&self, files: &mut Vec<File>, found: &Found, default_mode: u32) -> Result<(), String> {
        let optional = self.optional == Some(true);
        let Some(data) = found.data.get(&self.reference).and_then(Option::as_ref) else {
            return if optional { Ok(()) } else { Err(format!("{} \"{}\" not found", self.what, self.name)) };
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            files.extend(data.iter().map(|(key, bytes)| File {
                path: key.clone(),
                mode: default_mode,
                bytes: bytes.clone(),
                owner: None,
            }));
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => files.push(File {
                    path: item.path.clone(),
                    mode: item.mode.map_or(default_mode, |own| mode(Some(own))),
                    bytes: bytes.clone(),
                    owner: None,
                }),
                None if optional => {}
                None if self.what == "secret" => {
                    return Err(format!("references non-existent secret key: {}", item.key));
                }
                None => return Err(format!("configmap references non-existent config key: {}", item.key)),
            }
        }
        Ok(())
    }
}

fn add_downward(
    files: &mut Vec<File>,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    around: &Surroundings,
    default_mode: u32,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::field(pod, around, selector)?,
            (None, Some(selector)) => downward::resource(pod, None, around, selector)?,
            (None, None) => continue,
        };
        let mode = item.mode.map_or(default_mode, |own| mode(Some(own)));
        files.push(File { path: item.path.clone(), mode, bytes: text.into_bytes(), owner: None });
    }
    Ok(())
}

fn add_token(
    files: &mut Vec<File>,
    pod: &Pod,
    one: &k8s_openapi::api::core::v1::ServiceAccountTokenProjection,
    found: &Found,
    default_mode: u32,
) -> Result<(), String> {
    let wish = TokenWish {
        audience: one.audience.clone().filter(|audience| !audience.is_empty()),
        expiration_seconds: one.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT),
    };
    let token = found.tokens.get(&wish).ok_or("no service account token")?;
    let owner = only_user(pod);
    // Readable by the one user there is, else by the group of the volume, else by all.
    let has_group = spec::pod_spec(pod).security_context.as_ref().is_some_and(|context| context.fs_group.is_some());
    let mode = match (owner, has_group) {
        (Some(_), _) => 0o600,
        (None, true) => 0o640,
        (None, false) => default_mode,
    };
    files.push(File { path: one.path.clone(), mode, bytes: token.clone().into_bytes(), owner });
    Ok(())
}

/// The user that all containers run as, when the specification fixes one.
fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = spec::pod_spec(pod).security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = spec::init_containers(pod)
        .iter()
        .chain(spec::main_containers(pod))
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn pod() -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": []}}),
        )
        .expect("a pod")
    }

    fn tell(volume: serde_json::Value, known: &[(&str, &[(&str, &str)])]) -> Result<Vec<String>, String> {
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let mut found = Found::default();
        for reference in needs(&pod(), &volume).references {
            let data = known.iter().find(|(name, _)| *name == reference.name).map(|(_, data)| {
                Arc::new(data.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect())
            });
            found.data.insert(reference, data);
        }
        found.tokens.insert(TokenWish { audience: None, expiration_seconds: 3607 }, "tok".to_owned());
        let files = files(&pod(), &volume, &found, &Surroundings::default())?;
        Ok(files
            .iter()
            .map(|file| format!("{} {:o} {}", file.path, file.mode, String::from_utf8_lossy(&file.bytes)))
            .collect())
    }

    #[test]
    fn keys_become_files() {
        let known: &[(&str, &[(&str, &str)])] = &[("c", &[("a", "1"), ("b", "2")])];
        let all = json!({"name": "v", "configMap": {"name": "c", "defaultMode": 256}});
        assert_eq!(tell(all, known).as_deref(), Ok(&["a 400 1".to_owned(), "b 400 2".to_owned()][..]));
        let some =
            json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "b", "path": "x/y", "mode": 511}]}});
        assert_eq!(tell(some, known).as_deref(), Ok(&["x/y 777 2".to_owned()][..]));
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let table = [
            (json!({"name": "v", "configMap": {"name": "x"}}), Err("configmap \"x\" not found".to_owned())),
            (json!({"name": "v", "secret": {"secretName": "x"}}), Err("secret \"x\" not found".to_owned())),
            (json!({"name": "v", "secret": {"secretName": "x", "optional": true}}), Ok(vec![])),
            (
                json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}),
                Err("configmap references non-existent config key: z".to_owned()),
            ),
        ];
        for (volume, expected) in table {
            assert_eq!(tell(volume, &[("c", &[])]), expected);
        }
    }

    #[test]
    fn the_usual_projection_has_token_root_and_namespace() {
        let volume = json!({"name": "v", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        let known: &[(&str, &[(&str, &str)])] = &[("kube-root-ca.crt", &[("ca.crt", "CA")])];
        assert_eq!(
            tell(volume, known).as_deref(),
            Ok(&["token 644 tok".to_owned(), "ca.crt 644 CA".to_owned(), "namespace 644 ns".to_owned()][..])
        );
    }
}
