//! Validation of Publish and BatchPublish requests, and conversion of their results.

use prost::Message as _;
use tidings_proto::broadcast::encoded as pb;
use tidings_status::{Fields, Invalid};
use tidings_trace::TraceParent;

use super::DOMAIN;
use crate::model::{ChannelEpoch, ChannelName, Published, UnpublishedMessage};

/// Most items in a batch.
const BATCH_MAX: usize = 500;
/// Most encoded bytes of all items in a batch.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of `data`.
const DATA_MAX: usize = 64 * 1024;
const CONTENT_TYPE_MAX: usize = 128;

/// Validates a Publish request. `cause` is the trace of the call.
pub fn publish(request: pb::PublishRequest, cause: Option<TraceParent>) -> Result<UnpublishedMessage, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    validate(&mut fields, &request);
    fields.finish()?;
    Ok(unpublished_message(request, cause))
}

/// Validates a BatchPublish request. `cause` is the trace of the call.
pub fn batch_publish(
    request: pb::BatchPublishRequest,
    cause: Option<TraceParent>,
) -> Result<Vec<UnpublishedMessage>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    let requests = request.requests;
    fields.within_range("requests", &requests.len(), &(1..=BATCH_MAX));
    let bytes: usize = requests.iter().map(pb::PublishRequest::encoded_len).sum();
    if bytes > BATCH_BYTES_MAX {
        fields.refuse("requests", format!("expected at most {BATCH_BYTES_MAX} bytes together, got {bytes}"));
    }
    for (index, item) in requests.iter().enumerate().take(BATCH_MAX) {
        fields.within(format_args!("requests[{index}]"), |fields| validate(fields, item));
    }
    fields.finish()?;
    Ok(requests.into_iter().map(|request| unpublished_message(request, cause)).collect())
}

fn validate(fields: &mut Fields, request: &pb::PublishRequest) {
    fields.name("channel", &request.channel);
    let (bytes, kind) = (request.data.len(), &request.content_type);
    fields.require("data", bytes <= DATA_MAX, format!("expected at most {DATA_MAX} bytes, got {bytes}"));
    fields.require(
        "content_type",
        kind.len() <= CONTENT_TYPE_MAX && kind.bytes().all(|byte| byte.is_ascii_graphic()),
        format!("expected at most {CONTENT_TYPE_MAX} bytes of visible ASCII"),
    );
    fields.attributes("attributes", &request.attributes);
    fields.optional_id("request_id", &request.request_id);
    let parent = &request.trace_parent;
    fields.require(
        "trace_parent",
        parent.is_empty() || (parent.starts_with("00-") && TraceParent::parse(parent).is_some()),
        "expected a W3C traceparent of version 00, or nothing",
    );
}

fn unpublished_message(request: pb::PublishRequest, cause: Option<TraceParent>) -> UnpublishedMessage {
    let given = Some(request.trace_parent).filter(|given| !given.is_empty());
    UnpublishedMessage {
        channel: ChannelName::new(request.channel),
        data: request.data,
        content_type: request.content_type,
        attributes: request.attributes,
        request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        trace_parent: given.or_else(|| cause.map(|cause| cause.to_string())).unwrap_or_default(),
    }
}

/// Converts the position of a published message to the response of Publish.
pub fn published(published: Published) -> pb::PublishResponse {
    let Published { epoch, offset, deduplicated } = published;
    pb::PublishResponse { epoch: epoch.to_string(), offset, deduplicated }
}

/// Converts the position of a published message to the result of its batch item.
pub fn batch_published(item: Published) -> pb::BatchPublishResult {
    pb::BatchPublishResult { outcome: Some(pb::batch_publish_result::Outcome::Published(published(item))) }
}

/// Makes the result of a batch item whose request id belongs to the message at this position.
pub fn batch_refused(message: String, epoch: ChannelEpoch, offset: i64) -> pb::BatchPublishResult {
    let reason = pb::ErrorReason::RequestIdReused.into();
    let failure = pb::PublishFailure { reason, message, epoch: epoch.to_string(), offset };
    pb::BatchPublishResult { outcome: Some(pb::batch_publish_result::Outcome::Failure(failure)) }
}
