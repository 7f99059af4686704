//! `docs/metrics.md`: every metric, from what the four services tell right after their start; and whether Prometheus likes it.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use crate::{assert_up_to_date, table};
use services::{SERVICES, expositions};

const INTRODUCTION: &str = "\
# Metrics

Every service tells its numbers at `/metrics` of its admin address (`--admin-listen`), in Prometheus' text format. Names, types and
labels are promises: who renames one breaks somebody's alert. All of them are there from the start, also those of codes and outcomes
that never were, so that a rate can be told from the first one on.

No label has values of callers: ids, names of channels and locks are never among them, and methods that nobody knows are `_other`.

Times are histograms in seconds; `grpc_code` is written as the gRPC ecosystem does (`OK`, `NotFound`, `DeadlineExceeded`).
Numbers of the process come from `/proc`, and are there on Linux. Written from the services by `make docs`.
";

/// Labels whose values are many, or no promise.
const OPEN_LABELS: [&str; 6] = ["grpc_code", "grpc_method", "grpc_service", "service", "version", "le"];

/// One metric, as one service tells it.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics of an exposition.
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

/// A label with its values, if these are few and promised.
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
            assert!(!metric.help.is_empty() && !metric.kind.is_empty(), "{name}: nobody says what it is");
            let (known, services) = all.entry(name.clone()).or_default();
            assert!(services.is_empty() || known.help == metric.help, "{name} means two things");
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
async fn every_code_of_every_method_is_there_from_the_start() {
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
async fn promtool_finds_nothing_wrong() {
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
                    "promtool_finds_nothing_wrong: skipped, promtool is not there (Debian has it in `prometheus`)"
                );
                return;
            }
            promtool => promtool.unwrap(),
        };
        promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
        let found = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[found.stdout, found.stderr].concat()).into_owned();
        assert!(found.status.success() && said.is_empty(), "{service}: {said}");
    }
}
