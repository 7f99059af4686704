//! Flags for the sizes of the data that a scenario uses.

use tidings_load::WorkloadShape;

/// The sizes of the data that a scenario uses.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Size")]
pub(super) struct ShapeArgs {
    /// Number of users, conversations or channels over which the calls are spread
    #[arg(long, value_name = "N", default_value_t = WorkloadShape::default().keys, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keys: u32,

    /// Size of a message in bytes
    #[arg(long, value_name = "BYTES", default_value_t = WorkloadShape::default().size, value_parser = clap::value_parser!(u16).range(16..=32_768))]
    size: u16,

    /// Number of items in a batch and of messages in a page
    #[arg(long, value_name = "N", default_value_t = WorkloadShape::default().batch, value_parser = clap::value_parser!(u16).range(1..=100))]
    batch: u16,

    /// Number of subscribers (scenario `subscribe`) and watchers (`watch-users`)
    #[arg(long, value_name = "N", default_value_t = WorkloadShape::default().subscribers, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    subscribers: u16,
}

impl From<ShapeArgs> for WorkloadShape {
    fn from(ShapeArgs { keys, size, batch, subscribers }: ShapeArgs) -> Self {
        Self { keys, size, batch, subscribers }
    }
}
