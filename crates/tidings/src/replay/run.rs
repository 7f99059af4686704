//! The phases of a replay: create the users, send the conversations, read everything back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::clients::ServiceClients;
use super::concurrent::map_concurrently;
use super::findings::ReplayFindings;
use super::plan::{PlannedConversation, ReplayPlan};
use super::progress::run_with_progress;
use super::{check, clients, import, readers};
use crate::progress::ProgressMode;

/// The calls of a replay, phase by phase.
#[derive(Clone, Copy)]
pub(super) struct ReplayRun<'a> {
    pub(super) options: ReplayOptions,
    pub(super) plan: &'a ReplayPlan,
    pub(super) clients: &'a ServiceClients,
    pub(super) progress: ProgressMode,
}

/// Sizes and speed of a replay.
#[derive(Clone, Copy)]
pub(super) struct ReplayOptions {
    /// Concurrent conversations and concurrent user calls.
    pub(super) parallel: usize,
    /// Shortest time between two messages of a conversation.
    pub(super) interval: Option<Duration>,
    /// Readers of each conversation.
    pub(super) readers: u16,
    /// Messages in a page when reading back.
    pub(super) page_size: i32,
}

/// The findings of a replay, and the durations of its phases.
pub(super) struct ReplayOutcome {
    pub(super) findings: ReplayFindings,
    /// Duration of sending the messages.
    pub(super) sending: Duration,
    /// Duration of reading everything back.
    pub(super) checking: Duration,
}

impl<'a> ReplayRun<'a> {
    /// Runs every phase.
    pub(super) async fn run(self) -> Result<ReplayOutcome, clients::Error> {
        let Self { options: ReplayOptions { parallel, .. }, plan, clients, progress } = self;
        let retries = || clients.retries();
        let job = async |done: &_| import::users(clients, &plan.users, parallel, done).await;
        let (users, mut findings) = run_with_progress(progress, "users", plan.users.len(), retries, job).await?;

        let begin = Instant::now();
        let (sent, sending) = self.send().await?;
        findings.add(sending);
        let sending = begin.elapsed();

        let begin = Instant::now();
        findings.add(self.check_conversations(&sent).await?);
        findings.add(self.check_authors(&sent).await?);
        let checking = begin.elapsed();

        let job = async |done: &_| check::users::check(clients, &users, parallel, done).await;
        findings.add(run_with_progress(progress, "users read", 3 * users.len(), retries, job).await?);
        Ok(ReplayOutcome { findings, sending, checking })
    }

    /// Sends the conversations concurrently while readers subscribe. Returns the conversations that
    /// were acknowledged completely.
    async fn send(self) -> Result<(Vec<&'a PlannedConversation>, ReplayFindings), clients::Error> {
        let Self { options, plan, clients, progress } = self;
        let total = plan.conversations.iter().map(|conversation| conversation.messages.len()).sum();
        let outcomes = run_with_progress(
            progress,
            "messages sent",
            total,
            || clients.retries(),
            async |done| {
                let job = async |conversation| {
                    let import = import::conversation(clients, conversation, options.interval, done);
                    readers::read_during(clients, conversation, options.readers, import).await
                };
                map_concurrently(&plan.conversations, options.parallel, job).await
            },
        );
        let mut all = ReplayFindings::default();
        let mut sent = Vec::new();
        for (conversation, (complete, findings)) in plan.conversations.iter().zip(outcomes.await?) {
            sent.extend(complete.then_some(conversation));
            all.add(findings);
        }
        Ok((sent, all))
    }

    async fn check_conversations(self, sent: &[&'a PlannedConversation]) -> Result<ReplayFindings, clients::Error> {
        let Self { options, clients, progress, .. } = self;
        let total = 2 * sent.iter().map(|sent| sent.messages.len()).sum::<usize>();
        let outcomes = run_with_progress(
            progress,
            "messages read",
            total,
            || clients.retries(),
            async |done| {
                let job = async |sent: &&PlannedConversation| {
                    check::conversations::check(clients, sent, options.page_size, done).await
                };
                map_concurrently(sent, options.parallel, job).await
            },
        );
        Ok(sum(outcomes.await?))
    }

    async fn check_authors(self, sent: &[&'a PlannedConversation]) -> Result<ReplayFindings, clients::Error> {
        let Self { options, clients, progress, .. } = self;
        let conversations: HashMap<_, _> = sent.iter().map(|sent| (sent.id.as_str(), *sent)).collect();
        let total = sent.iter().map(|sent| sent.messages.len()).sum();
        let outcomes = run_with_progress(
            progress,
            "by author",
            total,
            || clients.retries(),
            async |done| {
                let job = async |(user, authored)| {
                    check::authors::check(clients, &conversations, user, authored, options.page_size, done).await
                };
                map_concurrently(check::authors::authors(sent), options.parallel, job).await
            },
        );
        Ok(sum(outcomes.await?))
    }
}

fn sum(outcomes: Vec<ReplayFindings>) -> ReplayFindings {
    let mut all = ReplayFindings::default();
    for findings in outcomes {
        all.add(findings);
    }
    all
}
