//! The body of a response.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::sleep_until;
use tonic::Status;
use tonic::body::Body;

use super::call_record::CallRecord;
use super::chunks::PendingChunks;
use super::deadline::{self, Deadline};
use super::limits::Permit;
use super::panic::{HandlerPanicked, catch_step};
use crate::drain_signal::{DrainCause, DrainSignal};
use crate::poll_when_woken::PollWhenWoken;
use crate::send_timeout;

/// A response body that adds request id and error details to its status. It ends with a status even
/// if the service panics, or is ended by a deadline or a drain.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Body,
    /// Data from the inner body that is not sent yet. Unused for streams, whose frames are small.
    chunks: PendingChunks,
    record: CallRecord,
    stream_guard: Option<StreamGuard>,
    /// Set once the server has ended the stream in place of the service.
    ended: bool,
}

/// The permit of a stream, and the events that end the stream from outside.
pub(super) struct StreamGuard {
    _permit: Permit,
    forced_end: PollWhenWoken<ForcedEnd>,
}

/// The reason for which the server ends a stream.
enum ForcedEnd {
    DeadlineExceeded,
    Drain(DrainCause),
}

impl StreamGuard {
    pub(super) fn new(permit: Permit, deadline: Option<Deadline>, drain_signal: DrainSignal) -> Self {
        let forced_end = PollWhenWoken::new(async move {
            let deadline_passed = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.at()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = deadline_passed => ForcedEnd::DeadlineExceeded,
                cause = drain_signal.overdue() => ForcedEnd::Drain(cause),
            }
        });
        Self { _permit: permit, forced_end }
    }
}

impl fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamGuard")
    }
}

impl ResponseBody {
    /// Wraps the response of the service.
    pub(super) fn begin(
        response: Response<Body>,
        mut record: CallRecord,
        stream_guard: Option<StreamGuard>,
    ) -> Response<Self> {
        let (mut parts, body) = response.into_parts();
        // A response without messages has no trailers; its status is among the headers.
        if parts.headers.contains_key(Status::GRPC_STATUS) {
            record.end(&mut parts.headers);
        }
        Response::from_parts(parts, Self { body, chunks: PendingChunks::default(), record, stream_guard, ended: false })
    }

    /// Ends the stream with this status, and drops the body of the service.
    fn force_end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        // Cannot fail: the parts are ours and fit into headers.
        let _ = status.add_header(&mut trailers);
        self.record.end(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(chunk) = this.chunks.next() {
            send_timeout::part_sent();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let step = catch_step(|| match &this.stream_guard {
            Some(_) => this.record.span.in_scope(|| Pin::new(&mut this.body).poll_frame(cx)),
            None => Pin::new(&mut this.body).poll_frame(cx), // encoding one message logs nothing that needs the span
        });
        match step {
            Ok(Poll::Ready(Some(Ok(mut frame)))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.record.end(trailers);
                }
                if this.stream_guard.is_none() {
                    frame = frame.map_data(|data| this.chunks.split(data));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(other)) => Poll::Ready(other),
            Ok(Poll::Pending) => {
                let Some(stream_guard) = &mut this.stream_guard else { return Poll::Pending };
                let status = match ready!(Pin::new(&mut stream_guard.forced_end).poll(cx)) {
                    ForcedEnd::DeadlineExceeded => deadline::exceeded(&this.record.path),
                    ForcedEnd::Drain(cause) => cause.status(&this.record.path),
                };
                Poll::Ready(Some(Ok(this.force_end(&status))))
            }
            Err(HandlerPanicked) => {
                let status = HandlerPanicked::status(&this.record.path);
                Poll::Ready(Some(Ok(this.force_end(&status))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.chunks.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunks.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
