//! The body of an answer on its way out.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::sleep_until;
use tonic::Status;
use tonic::body::Body;

use super::deadline::Deadline;
use super::late_status;
use super::limits::Permit;
use super::panic::{Panicked, caught_in};
use super::pieces::Pieces;
use super::record::Record;
use crate::Reason;
use crate::ending::Ending;
use crate::rare::Rare;

/// When to come back whose stream was ended: at once, elsewhere.
const AT_ONCE: Duration = Duration::ZERO;

/// A body whose status is completed, and which ends in order whatever the service does.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Body,
    /// What the body has given and is not sent yet. Not for streams, whose frames are small.
    pieces: Pieces,
    record: Record,
    leash: Option<Leash>,
    /// Whether the stream was ended for the service.
    ended: bool,
}

/// What holds a stream: its place among the streams of the process, and what ends it from outside.
pub(super) struct Leash {
    _permit: Permit,
    ends: Rare<End>,
}

/// Why a stream is ended.
enum End {
    Late,
    Closing,
}

impl Leash {
    pub(super) fn new(permit: Permit, deadline: Option<Deadline>, ending: Ending) -> Self {
        let ends = Rare::new(async move {
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.at()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => End::Late,
                () = ending.overdue() => End::Closing,
            }
        });
        Self { _permit: permit, ends }
    }
}

impl fmt::Debug for Leash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leash")
    }
}

impl Answer {
    /// Takes an answer over from the service.
    pub(super) fn begin(answer: Response<Body>, mut record: Record, leash: Option<Leash>) -> Response<Self> {
        let (mut head, body) = answer.into_parts();
        // An answer without messages has no trailers, its status is among the headers.
        if head.headers.contains_key(Status::GRPC_STATUS) {
            record.end(&mut head.headers);
        }
        Response::from_parts(head, Self { body, pieces: Pieces::default(), record, leash, ended: false })
    }

    /// Ends the stream in place of the service, which is dropped.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        // Cannot fail: its parts are ours, and fit into headers.
        let _ = status.add_header(&mut trailers);
        self.record.end(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(piece) = this.pieces.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let step = caught_in(|| match &this.leash {
            Some(_) => this.record.span.in_scope(|| Pin::new(&mut this.body).poll_frame(cx)),
            None => Pin::new(&mut this.body).poll_frame(cx), // encoding one message says nothing that had to be found again
        });
        match step {
            Ok(Poll::Ready(Some(Ok(mut frame)))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.record.end(trailers);
                }
                if this.leash.is_none() {
                    frame = frame.map_data(|data| this.pieces.of(data));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(other)) => Poll::Ready(other),
            Ok(Poll::Pending) => {
                let Some(leash) = &mut this.leash else { return Poll::Pending };
                let status = match ready!(Pin::new(&mut leash.ends).poll(cx)) {
                    End::Late => late_status(&this.record.path),
                    End::Closing => Reason::Draining
                        .reply(&this.record.path, "the connection is about to end")
                        .retry_after(AT_ONCE)
                        .into_status(),
                };
                Poll::Ready(Some(Ok(this.end(&status))))
            }
            Err(Panicked) => {
                let status = Panicked::status(&this.record.path);
                Poll::Ready(Some(Ok(this.end(&status))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.pieces.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.pieces.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
