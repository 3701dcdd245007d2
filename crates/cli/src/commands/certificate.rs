//! `certificate`: approve or deny requests for certificates.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/certificates`.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::common::{Change, Teller};
use crate::builder::{self, Found, Question};
use crate::failure::{Result, all, plain};
use crate::manifest::Files;
use crate::print::{Output, at, list};
use crate::server::Call;
use crate::session::Session;

/// How often a request that someone else changes is judged again.
const TRIES_MAX: usize = 10;

/// Sub-commands of `certificate`.
#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Approve a request.
    Approve(Which),
    /// Deny a request.
    Deny(Which),
}

/// Which requests.
#[derive(Args, Clone, Debug)]
struct Which {
    /// NAME ...
    names: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    output: Output,
    /// Even when it is judged so already.
    #[arg(long)]
    force: bool,
}

/// What is said of a request.
struct Verdict {
    condition: &'static str,
    opposite: &'static str,
    reason: &'static str,
    message: &'static str,
    done: &'static str,
}

const APPROVED: Verdict = Verdict {
    condition: "Approved",
    opposite: "Denied",
    reason: "KubectlApprove",
    message: "This CSR was approved by kubectl certificate approve.",
    done: "approved",
};
const DENIED: Verdict = Verdict {
    condition: "Denied",
    opposite: "Approved",
    reason: "KubectlDeny",
    message: "This CSR was denied by kubectl certificate deny.",
    done: "denied",
};

/// Judges each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let (which, verdict) = match flags.what {
        What::Approve(which) => (which, APPROVED),
        What::Deny(which) => (which, DENIED),
    };
    if which.names.is_empty() && which.files.is_empty() {
        return plain("one or more CSRs must be specified as <name> or -f <filename>");
    }
    let change = Change { output: which.output.clone(), ..Change::default() };
    let mut teller = Teller::new(session, &change, "kubectl")?;
    let words: Vec<String> = which.names.iter().map(|name| format!("certificatesigningrequests/{name}")).collect();
    let question = Question { words: &words, files: which.files.clone(), ..Question::default() };
    let (found, mut failures) = builder::find(session, &question).await?;
    if found.is_empty() && failures.is_empty() {
        session.out("No resources found\n")?;
    }
    for found in found {
        match one(session, &found, &verdict, which.force).await {
            Ok(()) => teller.tell(session, &found.resource, &found.object, verdict.done)?,
            Err(failure) => failures.push(failure),
        }
    }
    all(failures)
}

async fn one(session: &Session, found: &Found, verdict: &Verdict, force: bool) -> Result {
    if !found.resource.is("certificates.k8s.io", "CertificateSigningRequest") {
        let kind = &found.resource.kind;
        return plain(format!("can only handle CertificateSigningRequest.certificates.k8s.io objects, got {kind}"));
    }
    let server = session.server().await?;
    let path = format!("{}/approval", found.path());
    let mut request = found.object.clone();
    for attempt in 1.. {
        let Some(judged) = judged(&request, verdict, force, jiff::Timestamp::now())? else { return Ok(()) };
        let call = Call::new(Method::PUT, &path).body("application/json", judged.to_string().into_bytes());
        match server.send(call).await {
            Err(failure) if failure.reason() == "Conflict" && attempt < TRIES_MAX => {
                request = server.get(&found.path()).await?;
            }
            answer => return answer.map(drop),
        }
    }
    Ok(())
}

/// The request with the verdict; none when it has it already.
fn judged(request: &Value, verdict: &Verdict, force: bool, now: jiff::Timestamp) -> Result<Option<Value>> {
    let conditions = list(request, "/status/conditions");
    let has = |kind: &str| conditions.iter().any(|condition| at(condition, "/type") == kind);
    if has(verdict.opposite) {
        let name = at(request, "/metadata/name");
        return plain(format!("certificate signing request {name:?} is already {}", verdict.opposite));
    }
    if has(verdict.condition) {
        return Ok(force.then(|| request.clone()));
    }
    let mut all = conditions.to_vec();
    all.push(json!({"type": verdict.condition, "status": "True", "reason": verdict.reason, "message": verdict.message,
        "lastUpdateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}));
    let mut judged = request.clone();
    judged["status"]["conditions"] = all.into();
    Ok(Some(judged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_given_once_and_never_turned_round() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let request = |conditions: Value| json!({"metadata": {"name": "jane"}, "status": {"conditions": conditions}});
        let fresh = judged(&json!({"metadata": {}}), &APPROVED, false, now).expect("is judged").expect("changes");
        assert_eq!(fresh["status"]["conditions"][0]["type"], "Approved");
        assert_eq!(fresh["status"]["conditions"][0]["lastUpdateTime"], "1970-01-01T00:00:00Z");
        let approved = request(json!([{"type": "Approved"}]));
        assert_eq!(judged(&approved, &APPROVED, false, now).expect("is judged"), None);
        let refused = judged(&approved, &DENIED, false, now).expect_err("is refused").message();
        assert_eq!(refused, "certificate signing request \"jane\" is already Approved");
    }
}
