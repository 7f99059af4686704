//! A large answer on its way out, in pieces.
//!
//! What h2 has been given it keeps until it is sent, also when the call is dropped meanwhile (an implicit reset waits its turn
//! behind the data). So it is given a little at a time, and as a copy: a slice would keep the whole answer.

use bytes::Bytes;

/// Small enough that the 256 streams of a connection which takes nothing hold 16 MiB; large enough that a copy costs nothing
/// beside the message that was encoded before.
const PIECE: usize = 64 << 10;

/// What is left of data that are sent in pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces(Bytes);

impl Pieces {
    /// Takes data over, and returns the first piece.
    pub(super) fn of(&mut self, data: Bytes) -> Bytes {
        if data.len() <= PIECE {
            return data;
        }
        self.0 = data;
        self.next().unwrap_or_default()
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.0.is_empty() {
            return None;
        }
        let piece = self.0.split_to(PIECE.min(self.0.len()));
        Some(Bytes::copy_from_slice(&piece))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces of data.
    fn cut(data: &Bytes) -> Vec<Bytes> {
        let mut pieces = Pieces::default();
        let first = pieces.of(data.clone());
        let all = std::iter::once(first).chain(std::iter::from_fn(|| pieces.next())).collect();
        assert!(pieces.is_empty());
        all
    }

    #[test]
    fn pieces_are_the_whole_in_order() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1] {
            let data: Bytes = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();

            let pieces = cut(&data);

            assert_eq!(pieces.concat(), data, "{length}");
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE), "{length}");
            assert_eq!(pieces.len(), length.div_ceil(PIECE).max(1), "{length}");
        }
    }

    #[test]
    fn a_piece_does_not_keep_the_whole() {
        let data = Bytes::from(vec![0; 3 * PIECE]);
        let mut pieces = Pieces::default();
        let first = pieces.of(data.clone());

        drop(pieces);

        assert!(data.is_unique(), "somebody else holds it");
        assert_eq!(first.len(), PIECE);
    }
}
