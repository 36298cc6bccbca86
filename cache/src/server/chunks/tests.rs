//! Windows of chunks.

use protocol::{codec, frame};

use super::*;

#[test]
fn a_window_has_a_header_before_each_body_and_knows_what_it_moves() {
    let chunk = |index, length| {
        let body = Bytes::from(vec![7; length]);
        let header = ChunkHeader {
            index,
            digest: Digest::of(&body),
            encoding: Encoding::Raw,
            body_bytes: u32::try_from(length).unwrap(),
        };
        (header, body)
    };
    let chunks = [chunk(0, 100), chunk(1, 100_000), chunk(2, 1)];
    let framed = |(header, body): &(ChunkHeader, Bytes)| {
        let answer: Result<ChunkHeader, Refusal> = Ok(*header);
        let message = codec::encode(&answer).unwrap();
        [&frame::header(&message)[..], &message, body].concat()
    };
    let expected: Vec<u8> = chunks.iter().flat_map(framed).collect();
    let window = window(chunks.into_iter());
    assert_eq!(window.pieces.concat(), expected);
    assert_eq!((window.chunks, window.bytes), (3, 100_101));
}

#[test]
fn windows_end_at_a_megabyte_and_at_256_chunks_and_a_large_chunk_has_its_own() {
    let sized = |size: u64| Digest::from_parts([1; 32], size);
    let windows = |sizes: &[u64]| {
        let mut chunks: VecDeque<_> = sizes.iter().map(|&size| sized(size)).collect();
        let next = std::iter::from_fn(|| next_window(&mut chunks));
        next.map(|window| window.len()).collect::<Vec<_>>()
    };
    assert!(windows(&[]).is_empty());
    assert_eq!(windows(&[1; 600]), [256, 256, 88]);
    assert_eq!(windows(&[600 << 10, 600 << 10]), [1, 1]);
    assert_eq!(windows(&[2 << 20, 2 << 20, 1, 1]), [1, 1, 2]);
}
