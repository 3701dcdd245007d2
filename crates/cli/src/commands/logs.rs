//! `logs`: what containers wrote.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/logs`.

use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufRead, AsyncBufReadExt as _, StreamExt as _};
use http::Method;
use serde_json::Value;

use super::common::duration;
use super::pods;
use crate::builder::{self, Question};
use crate::failure::{Failure, Result, all, plain, usage};
use crate::print::{at, list};
use crate::server::Call;
use crate::session::Session;
use crate::stream::to_stdout;

/// Lines that are shown of each of several pods unless --tail says otherwise.
const SELECTED_TAIL: i64 = 10;

/// Whose logs, and how much of them.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// POD or TYPE/NAME, and perhaps a container.
    words: Vec<String>,
    /// Label selector of pods.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(short = 'c', long)]
    container: Option<String>,
    #[arg(long)]
    all_containers: bool,
    /// All pods of TYPE/NAME.
    #[arg(long)]
    all_pods: bool,
    /// Go on with what comes.
    #[arg(short = 'f', long)]
    follow: bool,
    /// Of the container's life before this one.
    #[arg(short = 'p', long)]
    previous: bool,
    /// Only so many last lines; -1 for all.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    tail: i64,
    /// Only what is younger, such as 5m.
    #[arg(long)]
    since: Option<String>,
    /// Only what is younger than this time.
    #[arg(long)]
    since_time: Option<String>,
    #[arg(long)]
    timestamps: bool,
    /// Only so many bytes.
    #[arg(long)]
    limit_bytes: Option<i64>,
    /// The pod and container before every line.
    #[arg(long)]
    prefix: bool,
    #[arg(long)]
    ignore_errors: bool,
    /// How many logs may be followed at a time.
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    #[arg(long, hide = true)]
    insecure_skip_tls_verify_backend: bool,
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
}

/// One log.
struct Source {
    pod: String,
    container: String,
    path: String,
}

/// Prints them.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let query = query(&flags)?;
    let sources = sources(session, &flags).await?;
    let prefix = flags.prefix || flags.all_pods;
    if !flags.follow || sources.len() == 1 {
        let mut failures = Vec::new();
        for source in &sources {
            match print(session, source, &query, prefix).await {
                Ok(()) => {}
                Err(failure) if flags.ignore_errors => session.err(&failure.text()),
                Err(failure) => {
                    failures.push(failure);
                    break;
                }
            }
        }
        return all(failures);
    }
    if sources.len() > flags.max_log_requests {
        return plain(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            flags.max_log_requests
        ));
    }
    let mut following: FuturesUnordered<_> =
        sources.iter().map(|source| print(session, source, &query, prefix)).collect();
    while let Some(done) = following.next().await {
        match done {
            Err(failure) if flags.ignore_errors => session.err(&failure.text()),
            done => done?,
        }
    }
    Ok(())
}

fn query(flags: &Flags) -> Result<Vec<(&'static str, String)>> {
    if flags.since.is_some() && flags.since_time.is_some() {
        return plain("at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if flags.tail < -1 {
        return plain("--tail must be greater than or equal to -1");
    }
    let mut query = Vec::new();
    for (name, wanted) in [("follow", flags.follow), ("previous", flags.previous), ("timestamps", flags.timestamps)] {
        if wanted {
            query.push((name, "true".to_owned()));
        }
    }
    let selects = flags.selector.is_some() && !flags.follow;
    match flags.tail {
        -1 if selects => query.push(("tailLines", SELECTED_TAIL.to_string())),
        -1 => {}
        lines => query.push(("tailLines", lines.to_string())),
    }
    if let Some(since) = &flags.since {
        let bad = |_| {
            Failure::Plain(format!(
                "invalid argument {since:?} for \"--since\" flag: time: invalid duration {since:?}\nSee 'kubectl logs --help' for usage."
            ))
        };
        let seconds = duration(since).map_err(bad)?.as_secs_f64().ceil();
        query.push(("sinceSeconds", format!("{seconds:.0}")));
    }
    if let Some(time) = &flags.since_time {
        if time.parse::<jiff::Timestamp>().is_err() {
            return plain(format!(
                "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \"2006\""
            ));
        }
        query.push(("sinceTime", time.clone()));
    }
    if let Some(bytes) = flags.limit_bytes {
        query.push(("limitBytes", bytes.to_string()));
    }
    Ok(query)
}

async fn sources(session: &Session, flags: &Flags) -> Result<Vec<Source>> {
    let (word, container) = match (&flags.words[..], &flags.selector) {
        ([], None) => {
            return usage(
                "logs",
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
            );
        }
        ([], Some(selector)) => return selected(session, flags, selector).await,
        (_, Some(_)) => return plain("only a selector (-l) or a POD name is allowed"),
        ([word], None) => (word, flags.container.clone()),
        ([word, container], None) if flags.container.is_none() => (word, Some(container.clone())),
        ([_, _], None) => return plain("only one of -c or an inline [CONTAINER] arg is allowed"),
        _ => {
            return usage(
                "logs",
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
            );
        }
    };
    let namespace = session.namespace().await?;
    let pod = pods::pod(session, word, true).await.map_err(|failure| match failure.is_not_found() {
        true => {
            Failure::Plain(format!("error from server (NotFound): {} in namespace {namespace:?}", failure.message()))
        }
        false => failure,
    })?;
    of_pod(session, flags, &pod.object, container.as_deref())
}

async fn selected(session: &Session, flags: &Flags, selector: &str) -> Result<Vec<Source>> {
    let words = vec!["pods".to_owned()];
    let question = Question { words: &words, selector: Some(selector), bare_type: true, ..Question::default() };
    let (found, mut failures) = builder::find(session, &question).await?;
    if !failures.is_empty() {
        return Err(failures.remove(0));
    }
    if found.is_empty() {
        session.err(&format!("No resources found in {} namespace.\n", session.namespace().await?));
    }
    let mut sources = Vec::new();
    for found in found {
        sources.extend(of_pod(session, flags, &found.object, flags.container.as_deref())?);
    }
    Ok(sources)
}

fn of_pod(session: &Session, flags: &Flags, pod: &Value, container: Option<&str>) -> Result<Vec<Source>> {
    let name = at(pod, "/metadata/name").to_owned();
    let path = format!("/api/v1/namespaces/{}/pods/{name}/log", at(pod, "/metadata/namespace"));
    let one = |container: String| Source { pod: name.clone(), container, path: path.clone() };
    if flags.all_containers {
        let every = ["initContainers", "containers", "ephemeralContainers"];
        let names =
            every.iter().flat_map(|field| list(pod, &format!("/spec/{field}"))).map(|c| at(c, "/name").to_owned());
        return Ok(names.map(one).collect());
    }
    if let Some(container) = container {
        let known = ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|field| list(pod, &format!("/spec/{field}")).iter().any(|c| at(c, "/name") == container));
        return match known {
            true => Ok(vec![one(container.to_owned())]),
            false => plain(format!("container {container} is not valid for pod {name}")),
        };
    }
    Ok(vec![one(pods::container(session, pod, None, false)?)])
}

async fn print(session: &Session, source: &Source, query: &[(&'static str, String)], prefix: bool) -> Result {
    let server = session.server().await?;
    let mut query = query.to_vec();
    query.push(("container", source.container.clone()));
    let request =
        Call::new(Method::GET, &source.path).query(query).accept("application/json, */*").request(|body| body)?;
    let stream = server.client.request_stream(request).await.map_err(|error| server.failure(error))?;
    let head = prefix.then(|| format!("[pod/{}/{}] ", source.pod, source.container));
    copy(stream, head.as_deref()).await
}

/// Copies line by line, so that lines of several logs do not mix.
async fn copy(stream: impl AsyncBufRead, head: Option<&str>) -> Result {
    let mut stream = Box::pin(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = stream.read_until(b'\n', &mut line).await.map_err(Failure::from)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(head) = head {
            line.splice(0..0, head.bytes());
        }
        to_stdout(&line)?;
    }
}
