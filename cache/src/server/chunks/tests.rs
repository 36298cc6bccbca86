//! Windows of chunks.

use protocol::{codec, frame};

use super::*;

#[test]
fn a_window_has_a_header_before_each_body_and_knows_what_it_moves() {
    let bodies = [100, 100_000, 1, 0].map(|length| Bytes::from(vec![7; length]));
    let digests = bodies.each_ref().map(|body| Digest::of(body));
    let framed = |index: usize, encoding| {
        let answer: Result<ChunkHeader, Refusal> = Ok(ChunkHeader {
            index: u32::try_from(index).unwrap(),
            digest: digests[index],
            encoding,
            body_bytes: u32::try_from(bodies[index].len()).unwrap(),
        });
        let message = codec::encode(&answer).unwrap();
        assert!(frame::header(&message).len() + message.len() <= HEADER_BYTES);
        [&frame::header(&message)[..], &message, &bodies[index]].concat()
    };
    let found = |index: usize| {
        Visit::Answer(ReadAnswer::Found {
            encoding: Encoding::Raw,
            body: bodies[index].clone(),
        })
    };
    let brief = Visit::Brief {
        encoding: Encoding::Zstd,
        body: &bodies[2],
    };
    let mut filling = Filling::with_room_for(&digests);
    for (index, chunk) in [
        (1, found(1)),
        (2, brief),
        (3, Visit::Answer(ReadAnswer::Missing)),
        (0, found(0)),
    ] {
        filling.add((index, digests[index]), chunk);
    }
    let expected = [
        framed(1, Encoding::Raw),
        framed(2, Encoding::Zstd),
        framed(3, Encoding::Missing),
        framed(0, Encoding::Raw),
    ];
    let window = filling.whole();
    assert_eq!(window.pieces.concat(), expected.concat());
    assert_eq!((window.chunks, window.bytes), (4, 100_101));
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
