//! `docs/metrics.md`: every metric, from a scrape of the four services right after their start.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use crate::{assert_up_to_date, table};
use services::{SERVICES, expositions};

const INTRODUCTION: &str = "\
# Metrics

Every service exposes its metrics at `/metrics` of its admin address (`--admin-listen`) in
Prometheus' text format. Names, types and labels are stable: a renamed metric breaks alerts. Every
series exists from the start, with value 0 for codes and outcomes that have not occurred, so
`rate()` sees the first event.

No label holds data of callers such as ids or names of channels and locks. Unknown methods are
counted as `_other`.

Durations are histograms in seconds. `grpc_code` uses the spelling of the gRPC ecosystem (`OK`,
`NotFound`, `DeadlineExceeded`). Process metrics come from `/proc` and exist on Linux only.
Generated from the services by `make docs`.
";

/// Labels whose values are not listed: too many, or not stable.
const OPEN_LABELS: [&str; 6] = ["grpc_code", "grpc_method", "grpc_service", "service", "version", "le"];

/// One metric of one service.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Parses a scrape in the text exposition format.
fn parse(exposition: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else if !line.is_empty() {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let name = base.filter(|base| metrics.contains_key(*base)).unwrap_or(name);
            let metric = metrics.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
            for (label, value) in
                labels.trim_end_matches('}').split_terminator("\",").filter_map(|it| it.split_once("=\""))
            {
                metric.labels.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    metrics
}

/// Renders a label, with its values unless it is open.
fn label((name, values): (&String, &BTreeSet<String>)) -> String {
    if OPEN_LABELS.contains(&name.as_str()) {
        return format!("`{name}`");
    }
    format!("`{name}`: {}", values.iter().cloned().collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn docs_metrics_md_is_up_to_date() {
    let mut all: BTreeMap<String, (Metric, Vec<&str>)> = BTreeMap::new();
    for (service, exposition) in SERVICES.into_iter().zip(expositions().await) {
        for (name, metric) in parse(exposition) {
            assert!(!metric.help.is_empty() && !metric.kind.is_empty(), "{name} has no help text or type");
            let (known, services) = all.entry(name.clone()).or_default();
            assert!(services.is_empty() || known.help == metric.help, "{name} has two different help texts");
            services.push(service);
            let mut labels = std::mem::take(&mut known.labels);
            for (label, values) in &metric.labels {
                labels.entry(label.clone()).or_default().extend(values.iter().cloned());
            }
            *known = Metric { labels, ..metric };
        }
    }

    let mut text = INTRODUCTION.to_owned();
    let mut groups: Vec<Vec<&str>> = all.values().map(|(_, services)| services.clone()).collect();
    groups.sort_by_key(|services| (usize::MAX - services.len(), SERVICES.iter().position(|it| it == &services[0])));
    groups.dedup();
    for group in groups {
        let title = if group.len() == SERVICES.len() { "every service".to_owned() } else { group.join(", ") };
        let rows = all.iter().filter(|(_, (_, services))| *services == group).map(|(name, (metric, _))| {
            let labels = metric.labels.iter().filter(|(name, _)| *name != "le").map(label);
            let labels = labels.collect::<Vec<_>>().join("; ");
            [format!("`{name}`"), metric.kind.clone(), labels, metric.help.clone()]
        });
        text.extend(["\n## ", &title, "\n\n", &table(["metric", "type", "labels", "meaning"], rows)]);
    }
    assert_up_to_date("docs/metrics.md", &text);
}

#[tokio::test]
async fn every_code_of_every_method_has_a_series_from_the_start() {
    for (service, exposition) in SERVICES.into_iter().zip(expositions().await) {
        for method in tidings_proto::METHODS.iter().filter(|method| method.contract().contains(service)) {
            let name = format!(r#"grpc_service="{}",grpc_method="{}""#, method.contract(), method.short_name());
            let lines = exposition.lines().filter(|line| line.starts_with("grpc_server_handled_total"));
            let codes = lines.filter(|line| line.contains(&name) && line.ends_with("} 0")).count();
            assert_eq!(codes, 17, "{service}: {name}");
        }
    }
}

#[tokio::test]
async fn promtool_accepts_every_scrape() {
    for (service, exposition) in SERVICES.into_iter().zip(expositions().await) {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match promtool {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!(
                    "promtool_accepts_every_scrape: skipped, promtool is not installed (Debian package `prometheus`)"
                );
                return;
            }
            promtool => promtool.unwrap(),
        };
        promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
        let ended = promtool.wait_with_output().unwrap();
        let output = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert!(ended.status.success() && output.is_empty(), "{service}: {output}");
    }
}
