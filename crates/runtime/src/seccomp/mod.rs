//! System call filters: the default profile and profiles from files, compiled to BPF without libseccomp.
//!
//! seccompiler knows one verdict for what matches and one for the rest. A profile with more verdicts becomes several filters:
//! the kernel takes the strictest answer of all of them, so the main one allows whatever has a rule of its own, and one
//! further filter per other verdict restricts just its calls.

mod profile;
mod syscalls;

use std::collections::BTreeMap;
use std::path::Path;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::shim::protocol::SeccompChoice;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Allow,
    Errno(u32),
    KillThread,
    KillProcess,
    Log,
    Trap,
    Trace(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The bits under the mask equal the value.
    Masked(u64),
}

/// A condition on one argument.
#[derive(Clone, Debug)]
struct Arg {
    index: u8,
    op: Op,
    value: u64,
}

/// Calls that share a verdict; all conditions must hold.
#[derive(Clone, Debug)]
struct Rule {
    names: Vec<String>,
    verdict: Verdict,
    args: Vec<Arg>,
}

#[derive(Clone, Debug)]
struct Profile {
    default: Verdict,
    rules: Vec<Rule>,
}

/// The filters to install, in this order, for a process with these capabilities.
pub(crate) fn programs(choice: &SeccompChoice, capabilities: u64) -> Result<Vec<BpfProgram>, String> {
    let profile = match choice {
        SeccompChoice::Unconfined => return Ok(Vec::new()),
        SeccompChoice::Default => profile::default_profile(capabilities),
        SeccompChoice::Profile(path) => read_profile(path, capabilities)?,
    };
    compile(&profile).map_err(|error| format!("cannot load seccomp profile: {error}"))
}

fn compile(profile: &Profile) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let special = |rule: &&Rule| rule.verdict != profile.default;
    let mut others: Vec<Verdict> =
        profile.rules.iter().filter(special).map(|rule| rule.verdict).filter(|v| *v != Verdict::Allow).collect();
    others.sort_unstable();
    others.dedup();
    let mut programs = Vec::new();
    for verdict in others {
        let rules = profile.rules.iter().filter(|rule| rule.verdict == verdict);
        programs.push(filter(rules, Verdict::Allow, verdict)?);
    }
    if profile.default != Verdict::Allow {
        // Last, because it may forbid the call that installs filters.
        programs.push(filter(profile.rules.iter().filter(special), profile.default, Verdict::Allow)?);
    }
    Ok(programs)
}

fn filter<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    mismatch: Verdict,
    matched: Verdict,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut table: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        for number in rule.names.iter().filter_map(|name| syscalls::number(name)) {
            if rule.args.is_empty() {
                table.insert(number, None);
            } else if let Some(list) = table.entry(number).or_insert_with(|| Some(Vec::new())) {
                list.push(SeccompRule::new(rule.args.iter().map(condition).collect::<Result<_, _>>()?)?);
            }
        }
    }
    // An empty list stands for "whatever the arguments".
    let table = table.into_iter().map(|(number, rules)| (number, rules.unwrap_or_default())).collect();
    SeccompFilter::new(table, action(mismatch), action(matched), target_arch())?.try_into()
}

fn condition(arg: &Arg) -> Result<SeccompCondition, seccompiler::BackendError> {
    let op = match arg.op {
        Op::Equal => SeccompCmpOp::Eq,
        Op::NotEqual => SeccompCmpOp::Ne,
        Op::Less => SeccompCmpOp::Lt,
        Op::LessOrEqual => SeccompCmpOp::Le,
        Op::Greater => SeccompCmpOp::Gt,
        Op::GreaterOrEqual => SeccompCmpOp::Ge,
        Op::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Qword, op, arg.value)
}

fn action(verdict: Verdict) -> SeccompAction {
    match verdict {
        Verdict::Allow => SeccompAction::Allow,
        Verdict::Errno(errno) => SeccompAction::Errno(errno),
        Verdict::KillThread => SeccompAction::KillThread,
        Verdict::KillProcess => SeccompAction::KillProcess,
        Verdict::Log => SeccompAction::Log,
        Verdict::Trap => SeccompAction::Trap,
        Verdict::Trace(message) => SeccompAction::Trace(message),
    }
}

fn target_arch() -> TargetArch {
    if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 }
}

fn read_profile(path: &Path, capabilities: u64) -> Result<Profile, String> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("cannot load seccomp profile {}: {error}", path.display()))?;
    let json: file::Profile = serde_json::from_slice(&bytes)
        .map_err(|error| format!("cannot load seccomp profile {}: {error}", path.display()))?;
    file::translate(json, capabilities)
        .map_err(|error| format!("cannot load seccomp profile {}: {error}", path.display()))
}

/// Profiles in the JSON form of the OCI runtime specification and of docker.
mod file {
    use super::{Arg, Op, Rule, Verdict, libc};
    use crate::embedded::capabilities;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Profile {
        default_action: String,
        default_errno_ret: Option<u32>,
        #[serde(default)]
        syscalls: Vec<Call>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Call {
        #[serde(default)]
        names: Vec<String>,
        action: String,
        errno_ret: Option<u32>,
        #[serde(default, deserialize_with = "null_is_empty")]
        args: Vec<Comparison>,
        #[serde(default)]
        includes: Condition,
        #[serde(default)]
        excludes: Condition,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Comparison {
        index: u8,
        value: u64,
        #[serde(default)]
        value_two: u64,
        op: String,
    }

    #[derive(Debug, Default, Deserialize)]
    struct Condition {
        #[serde(default)]
        caps: Vec<String>,
        #[serde(default)]
        arches: Vec<String>,
    }

    fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Comparison>, D::Error> {
        Ok(Option::<Vec<Comparison>>::deserialize(deserializer)?.unwrap_or_default())
    }

    pub(super) fn translate(json: Profile, capabilities: u64) -> Result<super::Profile, String> {
        let default = verdict(&json.default_action, json.default_errno_ret)?;
        let mut rules = Vec::new();
        for call in json.syscalls {
            if !includes(&call.includes, capabilities) || excludes(&call.excludes, capabilities) {
                continue;
            }
            let args = call.args.iter().map(comparison).collect::<Result<Vec<_>, _>>()?;
            rules.push(Rule { names: call.names, verdict: verdict(&call.action, call.errno_ret)?, args });
        }
        Ok(super::Profile { default, rules })
    }

    fn here(arch: &str) -> bool {
        let own: &[&str] = if cfg!(target_arch = "aarch64") { &["arm64", "aarch64"] } else { &["amd64", "x86_64"] };
        own.contains(&arch)
    }

    fn has(capabilities: u64, name: &str) -> bool {
        capabilities::number(name).is_some_and(|number| capabilities & (1 << number) != 0)
    }

    fn includes(condition: &Condition, capabilities: u64) -> bool {
        condition.caps.iter().all(|name| has(capabilities, name))
            && (condition.arches.is_empty() || condition.arches.iter().any(|arch| here(arch)))
    }

    fn excludes(condition: &Condition, capabilities: u64) -> bool {
        condition.caps.iter().any(|name| has(capabilities, name)) || condition.arches.iter().any(|arch| here(arch))
    }

    fn verdict(action: &str, errno: Option<u32>) -> Result<Verdict, String> {
        Ok(match action {
            "SCMP_ACT_ALLOW" => Verdict::Allow,
            "SCMP_ACT_ERRNO" => Verdict::Errno(errno.unwrap_or(libc::EPERM as u32)),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Verdict::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Verdict::KillProcess,
            "SCMP_ACT_LOG" => Verdict::Log,
            "SCMP_ACT_TRAP" => Verdict::Trap,
            "SCMP_ACT_TRACE" => Verdict::Trace(errno.unwrap_or(0)),
            other => return Err(format!("unknown action {other:?}")),
        })
    }

    fn comparison(json: &Comparison) -> Result<Arg, String> {
        let (op, value) = match json.op.as_str() {
            "SCMP_CMP_EQ" => (Op::Equal, json.value),
            "SCMP_CMP_NE" => (Op::NotEqual, json.value),
            "SCMP_CMP_LT" => (Op::Less, json.value),
            "SCMP_CMP_LE" => (Op::LessOrEqual, json.value),
            "SCMP_CMP_GT" => (Op::Greater, json.value),
            "SCMP_CMP_GE" => (Op::GreaterOrEqual, json.value),
            "SCMP_CMP_MASKED_EQ" => (Op::Masked(json.value), json.value_two),
            other => return Err(format!("unknown comparison {other:?}")),
        };
        Ok(Arg { index: json.index, op, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles() {
        for (capabilities, filters) in [(0, 2), (u64::MAX >> 1, 1)] {
            let programs = programs(&SeccompChoice::Default, capabilities).unwrap();
            assert_eq!(programs.len(), filters);
            assert!(programs.iter().all(|program| program.len() < 4096));
        }
        assert!(programs(&SeccompChoice::Unconfined, 0).unwrap().is_empty());
    }

    #[test]
    fn profiles_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        for (text, expected) in [
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","args":null}]}"#,
                Ok(1),
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","nosuch"],"action":"SCMP_ACT_ALLOW"},
                {"names":["mkdir"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#,
                Ok(2),
            ),
            (r#"{"defaultAction":"SCMP_ACT_NOPE"}"#, Err("unknown action")),
            ("{", Err("EOF")),
        ] {
            std::fs::write(&path, text).unwrap();
            let result = programs(&SeccompChoice::Profile(path.clone()), 0);
            match expected {
                Ok(filters) => assert_eq!(result.unwrap().len(), filters),
                Err(part) => assert!(result.unwrap_err().contains(part)),
            }
        }
    }
}
