//! A user that is created, read through every cache and instance, changed and deleted.

use std::time::Duration;

use tidings_proto::user::read_info::Source;
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{
    Consistency, CreateUserRequest, DeleteUserRequest, GetUserRequest, GetUserResponse, UpdateUserRequest, User,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use uuid::Uuid;

use super::findings::{self, Findings};
use super::instance::Instance;
use crate::shown;

/// How long a cache may take to answer, and a change to be seen: many times what both take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A throw-away user.
struct Trial<'a> {
    id: String,
    /// All instances; the first is the one that is written to.
    users: &'a [Instance],
    findings: &'a mut Findings,
}

/// Does what every caller does, and tells how it goes.
pub(super) async fn look(users: &[Instance], findings: &mut Findings) {
    let id = format!("doctor-{}", Uuid::now_v7());
    let mut trial = Trial { id, users, findings };
    if trial.create().await {
        trial.read_everywhere(1, "read your write").await;
        trial.read_past_the_caches().await;
        trial.caches().await;
        let version = if trial.update().await { 2 } else { 1 };
        if version == 2 {
            trial.read_everywhere(version, "read your update").await;
            trial.seen_everywhere(version).await;
        }
        trial.delete(version).await;
    }
}

/// How a read is made.
#[derive(Clone, Copy)]
enum Reading {
    Plain,
    AtLeast(i64),
    Strong,
}

impl Trial<'_> {
    fn writer(&self) -> &Instance {
        &self.users[0]
    }

    async fn read(&self, instance: &Instance, reading: Reading) -> Result<GetUserResponse, Status> {
        let (min_version, consistency) = match reading {
            Reading::Plain => (0, Consistency::Cached),
            Reading::AtLeast(version) => (version, Consistency::Cached),
            Reading::Strong => (0, Consistency::Strong),
        };
        let request = GetUserRequest { id: self.id.clone(), min_version, consistency: consistency.into() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        Ok(instance.call(request, send).await?.0.into_inner())
    }

    /// Notes how a write went. Returns whether it went well.
    fn wrote<T>(&mut self, check: &'static str, outcome: Result<(T, Duration), Status>) -> bool {
        let title = self.writer().title();
        match outcome {
            Ok((_, took)) => {
                self.findings.ok(&title, check, format!("{} in {}", self.id, findings::took(took)));
                return true;
            }
            Err(status) => {
                let words = self.writer().words(&status);
                let advice = match status.code() {
                    Code::PermissionDenied => "show it a token with the scope user:write, or look with --read-only",
                    _ => "see its health above, and its log",
                };
                self.findings.fail(&title, check, words, advice);
            }
        }
        false
    }

    async fn create(&mut self) -> bool {
        let display_name = "made by tidings doctor".to_owned();
        let user = User { id: self.id.clone(), display_name, ..User::default() };
        let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
        let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
        let outcome = self.writer().call(request, send).await;
        self.wrote("create", outcome)
    }

    async fn update(&mut self) -> bool {
        let user = User { id: self.id.clone(), bio: "changed once".to_owned(), ..User::default() };
        let mask = prost_types::FieldMask { paths: vec!["bio".to_owned()] };
        let request = UpdateUserRequest { user: Some(user), update_mask: Some(mask), expected_version: 1 };
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let outcome = self.writer().call(request, send).await;
        self.wrote("update", outcome)
    }

    async fn delete(&mut self, expected_version: i64) {
        let request = DeleteUserRequest { id: self.id.clone(), expected_version };
        let send = async |channel, request| UserServiceClient::new(channel).delete_user(request).await;
        let outcome = self.writer().call(request, send).await;
        if !self.wrote("delete", outcome) {
            return;
        }
        for instance in self.users {
            let gone = async || match self.read(instance, Reading::Plain).await {
                Err(status) if status.code() == Code::NotFound => Some(Ok(())),
                Err(status) => Some(Err(status)),
                Ok(_) => None,
            };
            let (outcome, took) = eventually(gone).await;
            self.seen(instance, "delete is seen", outcome, took);
        }
    }

    /// Whoever asks for a version gets it at once, whichever instance is asked.
    async fn read_everywhere(&mut self, version: i64, check: &'static str) {
        for instance in self.users {
            let title = instance.title();
            match self.read(instance, Reading::AtLeast(version)).await {
                Ok(answer) if user_version(&answer) == version => {
                    self.findings.ok(&title, check, format!("version {version}, from {}", source(&answer)));
                }
                Ok(answer) => {
                    let found = format!("asked for version {version}, got {}", user_version(&answer));
                    self.findings.fail(&title, check, found, "a promise is broken: report it with its log");
                }
                Err(status) => {
                    let words = instance.words(&status);
                    self.findings.fail(&title, check, words, "do all instances have the same Postgres?");
                }
            }
        }
    }

    async fn read_past_the_caches(&mut self) {
        for instance in self.users {
            let (title, check) = (instance.title(), "STRONG read");
            match self.read(instance, Reading::Strong).await {
                Ok(answer) if answer.read_info.as_ref().is_some_and(|read| read.source() == Source::Postgres) => {
                    self.findings.ok(&title, check, "from postgres");
                }
                Ok(answer) => {
                    let found = format!("from {}", source(&answer));
                    self.findings.fail(&title, check, found, "a promise is broken: report it with its log");
                }
                Err(status) => self.findings.fail(&title, check, instance.words(&status), "see to postgres"),
            }
        }
    }

    /// Reads until each cache has answered.
    async fn caches(&mut self) {
        for instance in self.users {
            let (mut redis, mut near) = (false, false);
            let both = async || {
                let answer = self.read(instance, Reading::Plain).await.ok()?;
                match answer.read_info.unwrap_or_default().source() {
                    Source::Redis => Some(Source::Redis),
                    Source::Near => Some(Source::Near),
                    _ => None,
                }
            };
            let begin = Instant::now();
            while !near && begin.elapsed() < PATIENCE {
                match both().await {
                    Some(Source::Near) => (redis, near) = (true, true), // it takes only what Redis had
                    Some(_) => redis = true,
                    None => {}
                }
                sleep(PAUSE).await;
            }
            let title = instance.title();
            if redis {
                self.findings.ok(&title, "redis cache", "answers reads");
            } else {
                let advice = "every read costs one of postgres: see to redis";
                self.findings.warn(&title, "redis cache", "answered no read", advice);
            }
            if near {
                self.findings.ok(&title, "near cache", "answers reads");
            } else {
                let advice = "every read costs one of redis: is --user-near-bytes 0, or redis away?";
                self.findings.warn(&title, "near cache", "answered no read", advice);
            }
        }
    }

    /// A change is seen by plain reads of every instance.
    async fn seen_everywhere(&mut self, version: i64) {
        for instance in self.users {
            let there = async || match self.read(instance, Reading::Plain).await {
                Ok(answer) if user_version(&answer) >= version => Some(Ok(())),
                Ok(_) => None,
                Err(status) => Some(Err(status)),
            };
            let (outcome, took) = eventually(there).await;
            self.seen(instance, "update is seen", outcome, took);
        }
    }

    fn seen(&mut self, instance: &Instance, check: &'static str, outcome: Option<Result<(), Status>>, took: Duration) {
        let title = instance.title();
        match outcome {
            Some(Ok(())) => self.findings.ok(&title, check, format!("by a plain read, after {}", findings::took(took))),
            Some(Err(status)) => {
                self.findings.fail(&title, check, instance.words(&status), "see its health above, and its log");
            }
            None => {
                let found = format!("not within {}", shown::millis(PATIENCE));
                let advice = "do all instances have the same redis, and a relay that works (tidings_user_outbox_oldest_seconds)?";
                self.findings.fail(&title, check, found, advice);
            }
        }
    }
}

fn user_version(answer: &GetUserResponse) -> i64 {
    answer.user.as_ref().map_or(0, |user| user.version)
}

fn source(answer: &GetUserResponse) -> &'static str {
    match answer.read_info.as_ref().map(tidings_proto::user::ReadInfo::source) {
        Some(Source::Near) => "near",
        Some(Source::Redis) => "redis",
        Some(Source::Postgres) => "postgres",
        _ => "somewhere",
    }
}

/// Looks until there is something, for as long as our patience lasts. Returns how long it took, too.
async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> (Option<T>, Duration) {
    let begin = Instant::now();
    loop {
        let found = look().await;
        if found.is_some() || begin.elapsed() > PATIENCE {
            return (found, begin.elapsed());
        }
        sleep(PAUSE).await;
    }
}
