//! Pages: from the tail, from Postgres, or from both where they meet.

use super::{Error, Histories};
use crate::cache::{Loaded, TAIL_MESSAGES, Token};
use crate::model::{Anchor, ConversationId, Page, Source};

/// How often a load is tried because messages were committed meanwhile: each time there are fewer of them, unless the
/// conversation is so hot that the next reader may have more luck.
const LOAD_TRIES: usize = 10;

impl Histories {
    /// Reads a page of at most `limit` messages that knows of all messages up to `min_seq`.
    pub async fn page(&self, id: &ConversationId, anchor: Anchor, limit: usize, min_seq: i64) -> Result<Page, Error> {
        let page = match self.tails.read(id, anchor, limit, min_seq).await {
            Ok(Some(slice)) => {
                let stale = !self.store.answers();
                let page = Page { messages: slice.messages, last_seq: slice.last_seq, source: Source::Redis, stale };
                self.complete(id, anchor, limit, page).await?
            }
            Ok(None) if anchor == Anchor::Newest => self.newest(id, limit).await?,
            Ok(None) => self.page_of_store(id, anchor, limit).await?,
            Err(error) => {
                self.missed(&error);
                self.page_of_store(id, anchor, limit).await?
            }
        };
        if page.last_seq < min_seq {
            return Err(Error::SeqAhead { last_seq: page.last_seq });
        }
        self.numbers.read(&page);
        Ok(page)
    }

    /// Adds to a page that goes back what is older than the tail.
    async fn complete(&self, id: &ConversationId, anchor: Anchor, limit: usize, mut page: Page) -> Result<Page, Error> {
        let goes_back = matches!(anchor, Anchor::Newest | Anchor::Before(_));
        let missing = limit.saturating_sub(page.messages.len());
        let Some(first) = page.messages.first().map(|message| message.seq) else {
            return Ok(page);
        };
        if !goes_back || missing == 0 || first == 1 {
            return Ok(page);
        }
        match self.page_of_store(id, Anchor::Before(first), missing).await {
            Ok(mut older) if older.messages.last().is_some_and(|last| last.seq + 1 == first) => {
                older.messages.append(&mut page.messages);
                Ok(Page { messages: older.messages, last_seq: page.last_seq.max(older.last_seq), ..older })
            }
            // The page ends early: with what the tail has, and a token for the rest.
            Ok(_) => Ok(page),
            Err(Error::Store(fault)) if fault.is_away() => Ok(Page { stale: true, ..page }),
            Err(error) => Err(error),
        }
    }

    /// Reads a newest page that the tail does not have, and makes the tail if nobody else is about to.
    async fn newest(&self, id: &ConversationId, limit: usize) -> Result<Page, Error> {
        let lease = self.tails.lease(id).await.unwrap_or_else(|error| {
            self.missed(&error);
            None
        });
        let Some(token) = lease else {
            return self.page_of_store(id, Anchor::Newest, limit).await;
        };
        let mut page = self.page_of_store(id, Anchor::Newest, TAIL_MESSAGES).await?;
        fail::fail_point!("history::before_load");
        self.load(id, token, &mut page).await;
        let surplus = page.messages.len().saturating_sub(limit);
        page.messages.drain(..surplus);
        Ok(page)
    }

    /// Makes a tail of a newest page, to which it adds what is committed meanwhile. If that fails, the page is an answer
    /// all the same.
    async fn load(&self, id: &ConversationId, token: Token, page: &mut Page) {
        for left in (0..LOAD_TRIES).rev() {
            match self.tails.load(id, token, &page.messages, page.last_seq, left > 0).await {
                Ok(Loaded::Behind { .. }) => {
                    let newer = self.page_of_store(id, Anchor::After(page.last_seq), TAIL_MESSAGES).await;
                    let Ok(mut newer) = newer else { return };
                    page.messages.append(&mut newer.messages);
                    page.last_seq = page.messages.last().map_or(page.last_seq, |message| message.seq);
                }
                Ok(Loaded::Done | Loaded::LeaseGone) => return,
                Err(error) => return self.missed(&error),
            }
        }
    }

    /// Reads a page from Postgres.
    async fn page_of_store(&self, id: &ConversationId, anchor: Anchor, limit: usize) -> Result<Page, Error> {
        let messages = &self.store.messages;
        let found = match anchor {
            Anchor::Newest => messages.before(id, i64::MAX, limit).await?,
            Anchor::Before(seq) => messages.before(id, seq, limit).await?,
            Anchor::After(seq) => messages.after(id, seq, limit).await?,
            Anchor::Around(seq) => {
                // Newer first: if there is anything newer, the older part is whole already when it is read.
                let newer = messages.after(id, seq - 1, limit - limit / 2).await?;
                let older = messages.before(id, seq, limit / 2).await?;
                newer.zip(older).map(|((_, newer), (last_seq, mut older))| {
                    older.extend(newer);
                    (last_seq, older)
                })
            }
        };
        let (last_seq, messages) = found.ok_or_else(|| Error::NoConversation { id: id.clone() })?;
        Ok(Page { messages, last_seq, source: Source::Postgres, stale: false })
    }
}
