//! What is done with bytes that anybody may have made: none of it panics, and what is taken for something is
//! that and nothing else. For the fuzzer and for the tests that run its corpus.

use buildspec::{PlanRequest, parse, plan, text_of};
use protocol::{
    access::Grant,
    attributes::Attributes,
    codec, frame,
    layout::Layout,
    message::{
        Refusal,
        cache::{CacheReply, CacheRequest, ChunkHeader},
        client::{ClientReply, ClientRequest, WatchEvent},
        handshake::{Hello, Welcome},
        lane::OnLane,
        terminal::{TerminalInput, TerminalOpened, TerminalOutput},
        work::{CoordinatorMessage, LogAck, LogPiece, LogStart, WorkRequest, WorkerMessage},
    },
    secret::SecretsReply,
    snapshot::Snapshot,
    tree::Tree,
};
use serde::{Serialize, de::DeserializeOwned};

/// A stream of frames: each says how long it is, and has one message.
pub(crate) fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk() {
        let Ok(length) = frame::length(*header) else {
            return;
        };
        assert!(length <= frame::FRAME_BYTES_MAX);
        let Some((message, next)) = after.split_at_checked(length) else {
            return;
        };
        assert_eq!(frame::header(message), *header);
        codec(message);
        rest = next;
    }
}

/// One message, taken for each kind that there is.
pub(crate) fn codec(bytes: &[u8]) {
    message::<Hello>(bytes);
    message::<Result<Welcome, Refusal>>(bytes);
    message::<CacheRequest>(bytes);
    message::<Result<CacheReply, Refusal>>(bytes);
    message::<Result<ChunkHeader, Refusal>>(bytes);
    message::<ChunkHeader>(bytes);
    message::<ClientRequest>(bytes);
    message::<Result<ClientReply, Refusal>>(bytes);
    message::<WatchEvent>(bytes);
    message::<WorkRequest>(bytes);
    message::<WorkerMessage>(bytes);
    message::<CoordinatorMessage>(bytes);
    message::<LogStart>(bytes);
    message::<LogPiece>(bytes);
    message::<LogAck>(bytes);
    message::<Result<SecretsReply, Refusal>>(bytes);
    message::<TerminalOpened>(bytes);
    message::<TerminalInput>(bytes);
    message::<TerminalOutput>(bytes);
    message::<OnLane<TerminalInput>>(bytes);
    message::<OnLane<TerminalOutput>>(bytes);
}

/// What is decoded is a message, and means the same after another journey.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(decoded) = codec::decode::<T>(bytes) else {
        return;
    };
    // Numbers may be written longer than they have to be, so these bytes may differ from the first.
    let encoded = codec::encode(&decoded).expect("what came in a frame fits in one");
    let again = codec::decode::<T>(&encoded).expect("what was encoded is decoded");
    let again = codec::encode(&again).expect("it fitted before");
    assert_eq!(again, encoded);
}

/// Canonical bytes: what is decoded has these bytes and no others, or two trees would have one digest, and one grant
/// two signatures.
pub(crate) fn trees(bytes: &[u8]) {
    if let Ok(tree) = Tree::decode(bytes) {
        assert_eq!(tree.encode(), bytes);
        for (index, entry) in tree.entries().iter().enumerate() {
            let found = tree.find(&entry.path).map(|(index, _)| index);
            assert_eq!(found, Some(index));
        }
    }
    if let Ok((tree, attributes)) = Attributes::decode(bytes) {
        assert_eq!(attributes.encode(&tree), bytes);
    }
    if let Ok((tree, layout)) = Layout::decode(bytes) {
        assert_eq!(layout.encode(&tree), bytes);
        assert_eq!(Layout::decode_chunks(bytes), Ok(layout.chunks));
    }
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.encode(), bytes);
    }
    if let Ok(grant) = Grant::decode(bytes) {
        assert_eq!(grant.encode(), bytes);
    }
}

/// A buildspec: it is read and planned, or all that is wrong with it is said.
pub(crate) fn buildspecs(bytes: &[u8]) {
    let Ok(text) = text_of(bytes) else {
        return;
    };
    let parsed = parse(text);
    let Some(spec) = parsed.spec else {
        assert!(!parsed.diagnostics.is_empty());
        return;
    };
    for batch in [false, true] {
        let request = PlanRequest {
            batch,
            ..PlanRequest::default()
        };
        // Why something cannot be planned is as good as a plan.
        let _planned = plan(&spec, &request);
    }
}
