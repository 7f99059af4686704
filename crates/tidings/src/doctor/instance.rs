//! Checks of one instance of a service, from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidings_client::{AttemptFailure, Endpoint, with_timeout};
use tidings_proto::broadcast::GetChannelRequest;
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::history::GetConversationRequest;
use tidings_proto::history::conversation_service_client::ConversationServiceClient;
use tidings_proto::lock::GetLockRequest;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::user::GetUserRequest;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_server::health::pb::{HealthListRequest, HealthListResponse};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::admin;
use super::findings::{self, CheckVerdict, DoctorFindings};

/// The id of the user, conversation, lock or channel that is read; it need not exist.
const PROBE_ID: &str = "doctor";
/// The largest clock skew without a warning: the `date` header has whole seconds.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);
/// The name of the check of versions.
const VERSION: &str = "version";

/// A service that can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ServiceName {
    User,
    History,
    Lock,
    Broadcast,
}

/// The instance that is checked.
#[derive(Clone, Debug)]
pub(super) struct CheckedInstance {
    name: ServiceName,
    endpoint: Arc<Endpoint>,
    admin: Option<String>,
    timeout: Duration,
}

impl CheckedInstance {
    pub(super) fn new(name: ServiceName, endpoint: Arc<Endpoint>, admin_above: u16, timeout: Duration) -> Self {
        let address = endpoint.address().to_string();
        let address = address.strip_prefix("https://").unwrap_or(&address).rsplit_once(':');
        let admin = address.and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?.checked_add(admin_above).filter(|_| admin_above > 0)?;
            Some(format!("{host}:{port}"))
        });
        Self { name, endpoint, admin, timeout }
    }

    /// Returns the name of the instance in findings, e.g. `user 127.0.0.1:7401`.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.service(), self.endpoint.address())
    }

    fn service(&self) -> &'static str {
        match self.name {
            ServiceName::User => "user",
            ServiceName::History => "history",
            ServiceName::Lock => "lock",
            ServiceName::Broadcast => "broadcast",
        }
    }

    /// Makes one call, without retries; returns the response and the time taken.
    ///
    /// # Errors
    /// The status of the call if it failed.
    pub(super) async fn call<T, R>(
        &self,
        request: T,
        send: impl AsyncFnOnce(Channel, Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<(Response<R>, Duration), Status> {
        let mut request = Request::new(request);
        request.set_timeout(self.timeout);
        self.endpoint.authorize(&mut request);
        let begin = Instant::now();
        let response = with_timeout(self.timeout, send(self.endpoint.channel(), request)).await?;
        Ok((response, begin.elapsed()))
    }

    /// Renders the failure of a call.
    pub(super) fn describe(&self, status: &Status) -> String {
        match AttemptFailure::new(status, self.endpoint.address()) {
            // Without the address, which is in the title.
            AttemptFailure::NotRunning { .. } => "connection refused".to_owned(),
            AttemptFailure::Unreachable { reason, .. } => reason,
            AttemptFailure::Answered(failure) => failure.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Checks the instance; returns true if it can be reached and serves a read.
    pub(super) async fn check(&self, findings: &mut DoctorFindings) -> bool {
        let before = SystemTime::now();
        let send = async |channel, request| HealthClient::new(channel).list(request).await;
        let response = self.call(HealthListRequest::default(), send).await;
        let after = SystemTime::now();
        let title = self.title();
        let (response, took) = match response {
            Ok(response) => response,
            Err(status) => {
                findings.fail(&title, "reachable", self.describe(&status), &self.reachability_advice(&status));
                return false;
            }
        };
        findings.ok(&title, "reachable", format!("responded in {}", findings::render_duration(took)));
        let details = self.check_admin_port(findings).await;
        health(&title, response.get_ref(), &details, findings);
        if let Some(date) = response.metadata().get("date").and_then(|date| http_date(date.to_str().ok()?)) {
            clock(&title, before, date, after, findings);
        }
        self.check_read(findings).await
    }

    fn reachability_advice(&self, status: &Status) -> String {
        let service = self.service();
        match AttemptFailure::new(status, self.endpoint.address()) {
            AttemptFailure::NotRunning { .. } => {
                format!("start it (tidings up, tidings serve {service}), or give its address with --{service}-addr")
            }
            AttemptFailure::Unreachable { .. } if self.endpoint.address().is_secure() => {
                "does --ca contain the CA of its certificate, and does it require a client certificate (--cert, --key)?"
                    .to_owned()
            }
            AttemptFailure::Unreachable { .. } => {
                "is it a service of Tidings? If it uses TLS, give https://HOST:PORT and --ca".to_owned()
            }
            AttemptFailure::Answered(_) => "see its log".to_owned(),
        }
    }

    /// Checks the port for metrics and probes; returns the text of `/readyz`, which explains the
    /// health.
    async fn check_admin_port(&self, findings: &mut DoctorFindings) -> String {
        let (title, Some(admin)) = (self.title(), &self.admin) else { return String::new() };
        let (ready, metrics) =
            tokio::join!(admin::get(admin, "/readyz", self.timeout), admin::get(admin, "/metrics", self.timeout));
        match (ready, metrics) {
            (Ok(ready), Ok(metrics)) => {
                let version = admin::label(&metrics.text, "tidings_build_info", "version").unwrap_or_default();
                findings.ok(&title, VERSION, version);
                if ready.code == 200 {
                    findings.ok(&title, "ready", format!("metrics and probes at http://{admin}/"));
                } else {
                    let reason = ready.text.lines().last().unwrap_or_default().to_owned();
                    findings.fail(&title, "ready", reason, "it gets no calls until it is ready");
                }
                ready.text
            }
            (Err(error), _) | (_, Err(error)) => {
                let found = format!("http://{admin}/: {error}");
                findings.warn(
                    &title,
                    "ready",
                    found,
                    "set --admin-above to the offset of that port, or run doctor where the port is reachable",
                );
                String::new()
            }
        }
    }

    /// Checks a small read with the given credentials; returns true if it is served.
    async fn check_read(&self, findings: &mut DoctorFindings) -> bool {
        let outcome = match self.name {
            ServiceName::User => self.read_user().await,
            ServiceName::History => self.read_conversation().await,
            ServiceName::Lock => self.read_lock().await,
            ServiceName::Broadcast => self.read_channel().await,
        };
        let (title, check) = (self.title(), "read");
        let status = match outcome {
            Ok(took) => {
                findings.ok(&title, check, format!("responded in {}", findings::render_duration(took)));
                return true;
            }
            Err(status) => status,
        };
        let found = self.describe(&status);
        match status.code() {
            Code::NotFound => {
                findings.ok(&title, check, "responded NOT_FOUND, as expected");
                return true;
            }
            Code::Unauthenticated => {
                findings.fail(&title, check, found, "give a token that it knows: --token-file");
            }
            Code::PermissionDenied => {
                let advice = format!("give a token with the scope {}:read", self.service());
                findings.fail(&title, check, found, &advice);
            }
            _ => findings.fail(&title, check, found, "see its health above, and its log"),
        }
        false
    }

    async fn read_user(&self) -> Result<Duration, Status> {
        let request = GetUserRequest { id: PROBE_ID.to_owned(), ..Default::default() };
        Ok(self
            .call(request, async |channel, request| UserServiceClient::new(channel).get_user(request).await)
            .await?
            .1)
    }

    async fn read_conversation(&self) -> Result<Duration, Status> {
        let request = GetConversationRequest { id: PROBE_ID.to_owned() };
        let send = async |channel, request| ConversationServiceClient::new(channel).get_conversation(request).await;
        Ok(self.call(request, send).await?.1)
    }

    async fn read_lock(&self) -> Result<Duration, Status> {
        let request = GetLockRequest { name: PROBE_ID.to_owned() };
        Ok(self
            .call(request, async |channel, request| LockServiceClient::new(channel).get_lock(request).await)
            .await?
            .1)
    }

    async fn read_channel(&self) -> Result<Duration, Status> {
        let request = GetChannelRequest { name: PROBE_ID.to_owned() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).get_channel(request).await;
        Ok(self.call(request, send).await?.1)
    }
}

/// Adds a finding for each entry that is not serving: a warning while the service itself serves.
fn health(title: &str, list: &HealthListResponse, details: &str, findings: &mut DoctorFindings) {
    let works = |status: ServingStatus| status == ServingStatus::Serving;
    let is_service = |entry: &str| entry.starts_with("tidings.");
    let out: Vec<_> =
        list.statuses.iter().filter(|(_, response)| !works(response.status())).map(|(entry, _)| entry).collect();
    if out.is_empty() {
        let mut entries: Vec<_> = list.statuses.keys().filter(|entry| !entry.is_empty()).map(String::as_str).collect();
        entries.sort_unstable();
        findings.ok(title, "health", format!("SERVING: {}", entries.join(", ")));
        return;
    }
    let main_job = !out.iter().any(|entry| is_service(entry));
    for entry in out {
        let name = if entry.is_empty() { "server" } else { entry };
        let detail = details.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_default();
        let detail = detail.split_once(" (").map(|(_, detail)| format!(" ({detail}")).unwrap_or_default();
        let found = format!("{name} NOT_SERVING{detail}");
        match name {
            "redis" | "postgres" | "broadcast" if main_job => {
                findings.warn(
                    title,
                    "health",
                    found,
                    &format!("check {name}: the service continues without it, with higher latency or delays"),
                );
            }
            "redis" | "postgres" | "broadcast" => {
                findings.fail(title, "health", found, &format!("check {name}: the service cannot work without it"));
            }
            _ => findings.fail(title, "health", found, "check its dependencies, and see its log"),
        }
    }
}

fn clock(title: &str, before: SystemTime, theirs: SystemTime, after: SystemTime, findings: &mut DoctorFindings) {
    let behind = before.duration_since(theirs + Duration::from_secs(1)).unwrap_or_default();
    let ahead = theirs.duration_since(after).unwrap_or_default();
    let apart = behind.max(ahead);
    if apart <= CLOCK_SKEW_MAX {
        findings.ok(title, "clock", "no skew to ours, to the second");
        return;
    }
    let found = format!("{}s {} ours", apart.as_secs(), if ahead > behind { "ahead of" } else { "behind" });
    findings.warn(title, "clock", found, "synchronize both machines with NTP: certificates and ages depend on clocks");
}

/// Parses an HTTP date, e.g. `Wed, 25 Nov 2026 13:36:08 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split(' ').skip(1);
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

/// Adds a warning if the instances and this command have different versions.
pub(super) fn compare_versions(findings: &mut DoctorFindings) {
    let ours = env!("CARGO_PKG_VERSION");
    let reported = findings.iter().filter(|finding| finding.check == VERSION && finding.verdict == CheckVerdict::Ok);
    let mut versions: BTreeSet<_> = reported.map(|finding| finding.found.clone()).collect();
    versions.insert(ours.to_owned());
    if versions.len() > 1 {
        let found = format!("different versions: {} (this command: {ours})", Vec::from_iter(versions).join(", "));
        findings.warn("all", VERSION, found, "finish the upgrade");
    }
}

#[cfg(test)]
mod tests {
    use tidings_server::health::pb::HealthCheckResponse;

    use super::*;

    fn verdicts(entries: &[(&str, ServingStatus)]) -> Vec<(CheckVerdict, String)> {
        let statuses = entries.iter().map(|(entry, status)| {
            let response = HealthCheckResponse { status: (*status).into() };
            ((*entry).to_owned(), response)
        });
        let mut findings = DoctorFindings::default();
        let list = HealthListResponse { statuses: statuses.collect() };
        health("user a:1", &list, "redis NOT_SERVING (breaker open)\n", &mut findings);
        findings.iter().map(|finding| (finding.verdict, finding.found.clone())).collect()
    }

    /// Losing an optional dependency is a warning.
    #[test]
    fn an_unavailable_dependency_fails_only_if_the_service_does_too() {
        use ServingStatus::{NotServing, Serving};
        let service = "tidings.user.v1.UserService";

        assert_eq!(
            verdicts(&[("redis", NotServing), (service, Serving)]),
            [(CheckVerdict::Warn, "redis NOT_SERVING (breaker open)".to_owned())]
        );
        let both = verdicts(&[("redis", NotServing), (service, NotServing)]);
        assert_eq!((both.len(), both.iter().all(|(verdict, _)| *verdict == CheckVerdict::Fail)), (2, true));
        assert_eq!(
            verdicts(&[("", Serving), ("redis", Serving), (service, Serving)]),
            [(CheckVerdict::Ok, format!("SERVING: redis, {service}"))]
        );
    }

    #[test]
    fn clock_skew_allows_for_the_time_of_the_call() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let judge = |before, theirs, after| {
            let mut findings = DoctorFindings::default();
            clock("user a:1", at(before), at(theirs), at(after), &mut findings);
            findings.iter().next().unwrap().found.clone()
        };

        assert_eq!(judge(100, 98, 103), "no skew to ours, to the second");
        assert_eq!(judge(100, 105, 103), "no skew to ours, to the second");
        assert_eq!(judge(100, 106, 103), "3s ahead of ours");
        assert_eq!(judge(100, 90, 103), "9s behind ours");
    }

    #[test]
    fn an_http_date_is_parsed() {
        let date = http_date("Wed, 25 Nov 2026 13:36:08 GMT").unwrap();

        assert_eq!(humantime::format_rfc3339_seconds(date).to_string(), "2026-11-25T13:36:08Z");
        assert_eq!(http_date("yesterday"), None);
    }
}
