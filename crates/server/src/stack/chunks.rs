//! Sends a large response in chunks.
//!
//! h2 keeps the data it was given until the data is sent, even if the call is dropped meanwhile: an
//! implicit reset waits behind the data. Therefore h2 gets one chunk at a time, and as a copy,
//! because a slice would keep the whole response in memory.

use bytes::Bytes;

/// Size of a chunk. The calls of a stalled connection hold 16 MiB if there are 256; a copy costs
/// little beside the encoding of the message.
const CHUNK_BYTES: usize = 64 << 10;

/// The rest of the data that is sent in chunks.
#[derive(Debug, Default)]
pub(super) struct PendingChunks(Bytes);

impl PendingChunks {
    /// Takes over the data and returns the first chunk.
    pub(super) fn split(&mut self, data: Bytes) -> Bytes {
        if data.len() <= CHUNK_BYTES {
            return data;
        }
        self.0 = data;
        self.next().unwrap_or_default()
    }

    /// Returns the next chunk.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.0.is_empty() {
            return None;
        }
        let chunk = self.0.split_to(CHUNK_BYTES.min(self.0.len()));
        Some(Bytes::copy_from_slice(&chunk))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all chunks of the data.
    fn chunks_of(data: &Bytes) -> Vec<Bytes> {
        let mut chunks = PendingChunks::default();
        let first = chunks.split(data.clone());
        let all = std::iter::once(first).chain(std::iter::from_fn(|| chunks.next())).collect();
        assert!(chunks.is_empty());
        all
    }

    #[test]
    fn the_chunks_are_the_data_in_order() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 1] {
            let data: Bytes = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();

            let chunks = chunks_of(&data);

            assert_eq!(chunks.concat(), data, "{length}");
            assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES), "{length}");
            assert_eq!(chunks.len(), length.div_ceil(CHUNK_BYTES).max(1), "{length}");
        }
    }

    #[test]
    fn a_chunk_does_not_keep_the_data_in_memory() {
        let data = Bytes::from(vec![0; 3 * CHUNK_BYTES]);
        let mut chunks = PendingChunks::default();
        let first = chunks.split(data.clone());

        drop(chunks);

        assert!(data.is_unique(), "a chunk holds a reference");
        assert_eq!(first.len(), CHUNK_BYTES);
    }
}
