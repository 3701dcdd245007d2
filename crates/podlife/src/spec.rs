//! Short questions about a pod's specification, asked in many places.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use stead_api::typed;
use stead_machinery::hand_over::{self, How};

use crate::view::Exit;

/// Which list of the pod a container is in, and how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others.
    Sidecar,
    Main,
    Ephemeral,
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }
}

#[must_use]
pub fn pod_spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NONE)
}

#[must_use]
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod_spec(pod).init_containers.as_deref().unwrap_or_default()
}

#[must_use]
pub fn main_containers(pod: &Pod) -> &[Container] {
    &pod_spec(pod).containers
}

#[must_use]
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod_spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

#[must_use]
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

#[must_use]
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    RestartPolicy::parse(pod_spec(pod).restart_policy.as_deref())
}

/// Initial, sidecar, main and ephemeral containers by name.
#[must_use]
pub fn role(pod: &Pod, name: &str) -> Option<Role> {
    if let Some(init) = init_containers(pod).iter().find(|container| container.name == name) {
        return Some(if is_sidecar(init) { Role::Sidecar } else { Role::Init });
    }
    if main_containers(pod).iter().any(|container| container.name == name) {
        return Some(Role::Main);
    }
    ephemeral_containers(pod).iter().any(|container| container.name == name).then_some(Role::Ephemeral)
}

/// The specification of an init, main or ephemeral container.
#[must_use]
pub fn container(pod: &Pod, name: &str) -> Option<Container> {
    let plain = init_containers(pod).iter().chain(main_containers(pod)).find(|container| container.name == name);
    plain.cloned().or_else(|| ephemeral_containers(pod).iter().find(|one| one.name == name).map(from_ephemeral))
}

/// The fields that an ephemeral container has, as a container.
#[must_use]
pub fn from_ephemeral(one: &EphemeralContainer) -> Container {
    let same = serde_json::to_string(one).and_then(|text| typed::from_text(&text));
    same.unwrap_or_else(|_| Container { name: one.name.clone(), image: one.image.clone(), ..Container::default() })
}

/// What must not differ between the specification and a running container: its image, as upstream since 1.27.
#[must_use]
pub fn hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Whether a container that ended so is started again. `restartPolicyRules` go first, then the container's own policy,
/// then the pod's.
#[must_use]
pub fn restarts(pod: &Pod, container: &Container, role: Role, exit: &Exit) -> bool {
    if role == Role::Ephemeral {
        return false;
    }
    if let Some(ruled) = ruled(container, exit) {
        return ruled;
    }
    let policy = match (role, container.restart_policy.as_deref()) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (_, None) => restart_policy(pod),
        (_, own) => RestartPolicy::parse(own),
    };
    match policy {
        RestartPolicy::Always => role != Role::Init || exit.code != 0,
        RestartPolicy::OnFailure => exit.code != 0,
        RestartPolicy::Never => false,
    }
}

fn ruled(container: &Container, exit: &Exit) -> Option<bool> {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    rules.iter().find_map(|rule| {
        let codes = rule.exit_codes.as_ref()?;
        let listed = codes.values.as_deref().unwrap_or_default().contains(&exit.code);
        let hit = if codes.operator == "NotIn" { !listed } else { listed };
        hit.then_some(rule.action == "Restart")
    })
}

/// `metadata.name`, namespace and uid; empty when absent, which the API server never lets happen.
#[must_use]
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    let meta = &pod.metadata;
    (
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    )
}

/// `name_namespace(uid)`, the form in which upstream's messages name a pod.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    let (name, namespace, uid) = identity(pod);
    format!("{name}_{namespace}({uid})")
}

/// A request to hand over that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver<'a> {
    /// Its time, by which it is told from others.
    pub request: &'a str,
    pub command: Vec<String>,
    pub container: String,
    pub seconds: u32,
}

/// What the pod's annotations ask the node to run; nothing when somebody else hands over.
#[must_use]
pub fn hand_over(pod: &Pod) -> Option<HandOver<'_>> {
    let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let request = annotation(hand_over::REQUESTED).filter(|_| annotation(hand_over::DONE).is_none())?;
    let How::Run(command) = hand_over::how(annotation(hand_over::HAND_OVER)?)? else { return None };
    let named = annotation(hand_over::CONTAINER).or_else(|| annotation("kubectl.kubernetes.io/default-container"));
    let first = main_containers(pod).first()?;
    let container = main_containers(pod).iter().find(|container| Some(container.name.as_str()) == named);
    let seconds = annotation(hand_over::SECONDS).and_then(hand_over::seconds).unwrap_or(hand_over::SECONDS_DEFAULT);
    Some(HandOver { request, command, container: container.unwrap_or(first).name.clone(), seconds })
}

/// Whether the API already has the pod as Succeeded or Failed.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
