//! The body of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::connection_state::ConnectionState;

pin_project! {
    /// A request body that records a reset by the client. A handler may respond to such a call
    /// nonetheless, so that the call does not show it.
    #[derive(Debug)]
    pub(crate) struct RequestBody<B> {
        #[pin]
        body: B,
        connection: Arc<ConnectionState>,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, connection: Arc<ConnectionState>) -> Self {
        Self { body, connection }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            this.connection.resets.record();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
