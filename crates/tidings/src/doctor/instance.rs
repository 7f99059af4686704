//! One instance of a service, looked at from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidings_client::{Endpoint, Refusal, within};
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

use super::findings::{self, Findings, Verdict};
use super::{Name, admin};

/// The id of a user, conversation, lock or channel that need not be there.
const NOBODY: &str = "doctor";
/// How much two clocks may differ: whole seconds are told, and answers take their time.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// The check that tells versions.
const VERSION: &str = "version";

/// One instance of a service.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    name: Name,
    endpoint: Arc<Endpoint>,
    admin: Option<String>,
    timeout: Duration,
}

impl Instance {
    pub(super) fn new(name: Name, endpoint: Arc<Endpoint>, admin_above: u16, timeout: Duration) -> Self {
        let place = endpoint.address().to_string();
        let place = place.strip_prefix("https://").unwrap_or(&place).rsplit_once(':');
        let admin = place.and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?.checked_add(admin_above).filter(|_| admin_above > 0)?;
            Some(format!("{host}:{port}"))
        });
        Self { name, endpoint, admin, timeout }
    }

    /// What it is called: `user 127.0.0.1:7401`.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.service(), self.endpoint.address())
    }

    fn service(&self) -> &'static str {
        match self.name {
            Name::User => "user",
            Name::History => "history",
            Name::Lock => "lock",
            Name::Broadcast => "broadcast",
        }
    }

    /// Makes one call. Returns the answer, and how long it took.
    ///
    /// # Errors
    /// What became of it instead.
    pub(super) async fn call<T, R>(
        &self,
        request: T,
        send: impl AsyncFnOnce(Channel, Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<(Response<R>, Duration), Status> {
        let mut request = Request::new(request);
        request.set_timeout(self.timeout);
        self.endpoint.authorize(&mut request);
        let begin = Instant::now();
        let answer = within(self.timeout, send(self.endpoint.channel(), request)).await?;
        Ok((answer, begin.elapsed()))
    }

    /// What a failed call says to people.
    pub(super) fn words(&self, status: &Status) -> String {
        match Refusal::new(status, self.endpoint.address()) {
            // Its place is said already.
            Refusal::NotRunning { .. } => "nobody listens there".to_owned(),
            Refusal::Unreachable { reason, .. } => reason,
            Refusal::Answered(failure) => failure.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Looks at all of it. Returns whether it lets us in and answers.
    pub(super) async fn look(&self, findings: &mut Findings) -> bool {
        let before = SystemTime::now();
        let send = async |channel, request| HealthClient::new(channel).list(request).await;
        let answer = self.call(HealthListRequest::default(), send).await;
        let after = SystemTime::now();
        let title = self.title();
        let (answer, took) = match answer {
            Ok(answer) => answer,
            Err(status) => {
                findings.fail(&title, "reachable", self.words(&status), &self.how_to_reach(&status));
                return false;
            }
        };
        findings.ok(&title, "reachable", format!("answered in {}", findings::took(took)));
        let details = self.look_at_admin(findings).await;
        health(&title, answer.get_ref(), &details, findings);
        if let Some(date) = answer.metadata().get("date").and_then(|date| http_date(date.to_str().ok()?)) {
            clock(&title, before, date, after, findings);
        }
        self.may_call(findings).await
    }

    fn how_to_reach(&self, status: &Status) -> String {
        let service = self.service();
        match Refusal::new(status, self.endpoint.address()) {
            Refusal::NotRunning { .. } => {
                format!("start it (tidings up, tidings serve {service}), or say where it is with --{service}-addr")
            }
            Refusal::Unreachable { .. } if self.endpoint.address().is_secure() => {
                "is --ca the file of those who signed its certificate, and does it want one of yours (--cert, --key)?"
                    .to_owned()
            }
            Refusal::Unreachable { .. } => {
                "is it a service of Tidings, and without TLS? Else give https://HOST:PORT and --ca".to_owned()
            }
            Refusal::Answered(_) => "see its log".to_owned(),
        }
    }

    /// Its port for machines. Returns what there is to say about its health.
    async fn look_at_admin(&self, findings: &mut Findings) -> String {
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
                    let waits = ready.text.lines().last().unwrap_or_default().to_owned();
                    findings.fail(&title, "ready", waits, "it gets no calls until then");
                }
                ready.text
            }
            (Err(error), _) | (_, Err(error)) => {
                let found = format!("http://{admin}/: {error}");
                findings.warn(
                    &title,
                    "ready",
                    found,
                    "say where it is with --admin-above, or ask where it can be reached",
                );
                String::new()
            }
        }
    }

    /// A small read, with the credentials that we have.
    async fn may_call(&self, findings: &mut Findings) -> bool {
        let answered = match self.name {
            Name::User => self.read_user().await,
            Name::History => self.read_conversation().await,
            Name::Lock => self.read_lock().await,
            Name::Broadcast => self.read_channel().await,
        };
        let (title, check) = (self.title(), "a read");
        let status = match answered {
            Ok(took) => {
                findings.ok(&title, check, format!("answered in {}", findings::took(took)));
                return true;
            }
            Err(status) => status,
        };
        let words = self.words(&status);
        match status.code() {
            Code::NotFound => {
                findings.ok(&title, check, "answered: there is no such thing, as expected");
                return true;
            }
            Code::Unauthenticated => {
                findings.fail(&title, check, words, "show it a token that it knows: --token-file");
            }
            Code::PermissionDenied => {
                let advice = format!("show it a token with the scope {}:read", self.service());
                findings.fail(&title, check, words, &advice);
            }
            _ => findings.fail(&title, check, words, "see its health above, and its log"),
        }
        false
    }

    async fn read_user(&self) -> Result<Duration, Status> {
        let request = GetUserRequest { id: NOBODY.to_owned(), ..Default::default() };
        Ok(self
            .call(request, async |channel, request| UserServiceClient::new(channel).get_user(request).await)
            .await?
            .1)
    }

    async fn read_conversation(&self) -> Result<Duration, Status> {
        let request = GetConversationRequest { id: NOBODY.to_owned() };
        let send = async |channel, request| ConversationServiceClient::new(channel).get_conversation(request).await;
        Ok(self.call(request, send).await?.1)
    }

    async fn read_lock(&self) -> Result<Duration, Status> {
        let request = GetLockRequest { name: NOBODY.to_owned() };
        Ok(self
            .call(request, async |channel, request| LockServiceClient::new(channel).get_lock(request).await)
            .await?
            .1)
    }

    async fn read_channel(&self) -> Result<Duration, Status> {
        let request = GetChannelRequest { name: NOBODY.to_owned() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).get_channel(request).await;
        Ok(self.call(request, send).await?.1)
    }
}

/// Tells which entries do not work. What a service goes on without is no more than a warning.
fn health(title: &str, list: &HealthListResponse, details: &str, findings: &mut Findings) {
    let works = |status: ServingStatus| status == ServingStatus::Serving;
    let is_service = |entry: &str| entry.starts_with("tidings.");
    let out: Vec<_> =
        list.statuses.iter().filter(|(_, answer)| !works(answer.status())).map(|(entry, _)| entry).collect();
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
                    &format!("it goes on without {name}, slower or later: see to {name}"),
                );
            }
            "redis" | "postgres" | "broadcast" => {
                findings.fail(title, "health", found, &format!("it does not answer: see to {name}"));
            }
            _ => findings.fail(title, "health", found, "it can not do its job: see what it depends on, and its log"),
        }
    }
}

fn clock(title: &str, before: SystemTime, theirs: SystemTime, after: SystemTime, findings: &mut Findings) {
    let behind = before.duration_since(theirs + Duration::from_secs(1)).unwrap_or_default();
    let ahead = theirs.duration_since(after).unwrap_or_default();
    let apart = behind.max(ahead);
    if apart <= CLOCKS_APART {
        findings.ok(title, "clock", "like ours, to the second");
        return;
    }
    let found = format!("{}s {} ours", apart.as_secs(), if ahead > behind { "ahead of" } else { "behind" });
    findings.warn(title, "clock", found, "let both machines follow NTP: certificates and ages are judged by clocks");
}

/// Reads `Wed, 25 Nov 2026 13:36:08 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split(' ').skip(1);
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

/// Tells if several versions run side by side, ours among them.
pub(super) fn compare_versions(findings: &mut Findings) {
    let ours = env!("CARGO_PKG_VERSION");
    let told = findings.iter().filter(|finding| finding.check == VERSION && finding.verdict == Verdict::Ok);
    let mut versions: BTreeSet<_> = told.map(|finding| finding.found.clone()).collect();
    versions.insert(ours.to_owned());
    if versions.len() > 1 {
        let found = format!("side by side: {} (this command: {ours})", Vec::from_iter(versions).join(", "));
        findings.warn("all", VERSION, found, "finish the upgrade");
    }
}

#[cfg(test)]
mod tests {
    use tidings_server::health::pb::HealthCheckResponse;

    use super::*;

    fn told(entries: &[(&str, ServingStatus)]) -> Vec<(Verdict, String)> {
        let statuses = entries.iter().map(|(entry, status)| {
            let answer = HealthCheckResponse { status: (*status).into() };
            ((*entry).to_owned(), answer)
        });
        let mut findings = Findings::default();
        let list = HealthListResponse { statuses: statuses.collect() };
        health("user a:1", &list, "redis NOT_SERVING (breaker open)\n", &mut findings);
        findings.iter().map(|finding| (finding.verdict, finding.found.clone())).collect()
    }

    #[test]
    fn what_a_service_goes_on_without_is_a_warning_and_what_it_needs_a_failure() {
        use ServingStatus::{NotServing, Serving};
        let service = "tidings.user.v1.UserService";

        assert_eq!(
            told(&[("redis", NotServing), (service, Serving)]),
            [(Verdict::Warn, "redis NOT_SERVING (breaker open)".to_owned())]
        );
        let both = told(&[("redis", NotServing), (service, NotServing)]);
        assert_eq!((both.len(), both.iter().all(|(verdict, _)| *verdict == Verdict::Fail)), (2, true));
        assert_eq!(
            told(&[("", Serving), ("redis", Serving), (service, Serving)]),
            [(Verdict::Ok, format!("SERVING: redis, {service}"))]
        );
    }

    #[test]
    fn a_clock_is_judged_with_what_the_answer_took() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let judge = |before, theirs, after| {
            let mut findings = Findings::default();
            clock("user a:1", at(before), at(theirs), at(after), &mut findings);
            findings.iter().next().unwrap().found.clone()
        };

        assert_eq!(judge(100, 98, 103), "like ours, to the second");
        assert_eq!(judge(100, 105, 103), "like ours, to the second");
        assert_eq!(judge(100, 106, 103), "3s ahead of ours");
        assert_eq!(judge(100, 90, 103), "9s behind ours");
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let date = http_date("Wed, 25 Nov 2026 13:36:08 GMT").unwrap();

        assert_eq!(humantime::format_rfc3339_seconds(date).to_string(), "2026-11-25T13:36:08Z");
        assert_eq!(http_date("yesterday"), None);
    }
}
