//! `autoscale`: a HorizontalPodAutoscaler for what can be scaled.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/autoscale`.

use clap::Args;
use serde_json::{Value, json};

use super::common::{Change, DryRun, Teller};
use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::session::Session;

/// What to scale, and between which numbers.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    change: Change,
    /// The least number of pods; negative for the server's default.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    min: i32,
    /// The greatest number of pods.
    #[arg(long, required = true, allow_hyphen_values = true)]
    max: i32,
    /// Processor time to aim at: 70% of what is requested, or an amount such as 500m for each pod.
    #[arg(long, default_value = "")]
    cpu: String,
    /// The same for memory: 60% or 200Mi.
    #[arg(long, default_value = "")]
    memory: String,
    /// The older form of --cpu.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    cpu_percent: i32,
    /// Name of the autoscaler (default: that of the object).
    #[arg(long, default_value = "")]
    name: String,
    /// Keep the autoscaler on itself for `apply`.
    #[arg(long)]
    save_config: bool,
}

/// Makes an autoscaler for each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.cpu_percent >= 0 {
        session.err("Flag --cpu-percent has been deprecated, Use --cpu with percentage or resource quantity format (e.g., '70%' for utilization or '500m' for milliCPU).\n");
    }
    let mut teller = Teller::new(session, &flags.change, "kubectl-autoscale")?;
    let metrics = metrics(&flags)?;
    let question = Question { words: &flags.words, files: flags.files.clone(), ..Question::default() };
    let (found, mut failures) = builder::find(session, &question).await?;
    if found.is_empty() && failures.is_empty() {
        return plain("no objects passed to autoscale");
    }
    for found in found {
        if let Err(failure) = one(session, &mut teller, &flags, &found, &metrics).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(session: &Session, teller: &mut Teller, flags: &Flags, found: &Found, metrics: &[Value]) -> Result {
    let resource = &found.resource;
    if !resource.subresources.iter().any(|sub| sub == "scale") {
        let named = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
        return plain(format!(
            "cannot autoscale a {}: could not find scale subresource for {named} in discovery information",
            resource.kind
        ));
    }
    let name = if flags.name.is_empty() { &found.name } else { &flags.name };
    let mut spec = json!({
        "maxReplicas": flags.max,
        "scaleTargetRef": {"apiVersion": resource.api_version(), "kind": resource.kind, "name": found.name},
    });
    if flags.min > 0 {
        spec["minReplicas"] = flags.min.into();
    }
    if !metrics.is_empty() {
        spec["metrics"] = metrics.into();
    }
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "creationTimestamp": null}, "spec": spec,
        "status": {"currentMetrics": null, "desiredReplicas": 0}});
    let done = if teller.dry_run == DryRun::Client { "created" } else { "autoscaled" };
    super::create::thought_up(session, teller, autoscaler, flags.save_config, done).await
}

/// What is aimed at, after the flags have been found sound.
fn metrics(flags: &Flags) -> Result<Vec<Value>> {
    let (min, max) = (flags.min, flags.max);
    if max < 1 {
        return plain(format!("--max=MAXPODS is required and must be at least 1, max: {max}"));
    }
    if max < min {
        return plain(format!("--max=MAXPODS must be larger or equal to --min=MINPODS, max: {max}, min: {min}"));
    }
    if flags.cpu_percent > 0 && !flags.cpu.is_empty() {
        return plain("--cpu-percent and --cpu are mutually exclusive");
    }
    let mut metrics = Vec::new();
    let mut add = |name: &str, target: Value| {
        metrics.push(json!({"type": "Resource", "resource": {"name": name, "target": target}}));
    };
    if flags.cpu_percent > 0 {
        add("cpu", json!({"type": "Utilization", "averageUtilization": flags.cpu_percent}));
    }
    for (name, text, unit) in [("cpu", &flags.cpu, "m"), ("memory", &flags.memory, "Mi")] {
        if !text.is_empty() {
            add(name, target(name, text.trim(), unit)?);
        }
    }
    Ok(metrics)
}

/// `70%` or an amount; a number alone is in a unit of its own.
fn target(name: &str, text: &str, unit: &str) -> Result<Value> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse::<i32>() {
            Ok(percent) if percent > 0 => Ok(json!({"type": "Utilization", "averageUtilization": percent})),
            Ok(percent) => plain(format!("utilization percentage must be a positive number, got {percent}")),
            Err(_) => plain(format!("invalid percentage value: {text:?}")),
        };
    }
    let amount = if text.parse::<f64>().is_ok() { format!("{text}{unit}") } else { text.to_owned() };
    let quantity: stead_machinery::quantity::Quantity =
        amount.parse().map_err(|_| Failure::Plain(format!("invalid resource {name} value: {text}")))?;
    Ok(json!({"type": "AverageValue", "averageValue": quantity.to_string()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_percentages_or_amounts() {
        for (name, text, unit, wanted) in [
            ("cpu", "70%", "m", Ok(r#"{"averageUtilization":70,"type":"Utilization"}"#)),
            ("cpu", "500", "m", Ok(r#"{"averageValue":"500m","type":"AverageValue"}"#)),
            ("memory", "200", "Mi", Ok(r#"{"averageValue":"200Mi","type":"AverageValue"}"#)),
            ("memory", "1Gi", "Mi", Ok(r#"{"averageValue":"1Gi","type":"AverageValue"}"#)),
            ("cpu", "x%", "m", Err("invalid percentage value: \"x%\"")),
            ("cpu", "x", "m", Err("invalid resource cpu value: x")),
        ] {
            let made = target(name, text, unit).map(|value| crate::print::compact(&value));
            assert_eq!(made.map_err(|failure| failure.message()), wanted.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
