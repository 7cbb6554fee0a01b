//! The object format: how Flower lays content-addressed objects out as bytes.
//!
//! An object is `<type> <child ids joined by commas> <body length>\0<body>`, and its id is the
//! SHA-256 of all of it. Servers check the head and treat bodies as opaque; the one object they make
//! themselves is the error message (Flower 1.22, `common/inflatable.py`, `common/message.py`).

mod head;

pub use self::head::{HeadCheck, Malformed, check};

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::ObjectId;
use crate::message::{Message, Metadata, Payload};

/// Lays out a message that carries an error: a `Message` object without children.
///
/// `metadata.id` is left out of the bytes, because it is their hash. A message with content is
/// nothing a server ever makes; its content is ignored.
#[must_use]
pub fn error_message(metadata: &Metadata, payload: &Payload) -> Bytes {
    let mut body = BytesMut::new();
    put_bytes(&mut body, 1, &encode_metadata(metadata));
    if let Payload::Error(error) = payload {
        let mut encoded = BytesMut::new();
        put_sint(&mut encoded, 1, error.code);
        put_text(&mut encoded, 2, error.reason.as_deref().unwrap_or_default());
        put_bytes(&mut body, 3, &encoded);
    }
    let mut object = BytesMut::with_capacity(body.len() + 24);
    object.put_slice(format!("Message  {}\0", body.len()).as_bytes());
    object.put_slice(&body);
    object.freeze()
}

/// Names an error message by its object, and returns the object with it.
#[must_use]
pub fn seal_error(mut message: Message) -> (Message, Bytes) {
    let object = error_message(&message.metadata, &message.payload);
    message.metadata.id = ObjectId::of(&object).into();
    (message, object)
}

/// The protobuf encoding of `flwr.proto.Metadata` with an empty message id: fields in the order of
/// their numbers, defaults left out.
fn encode_metadata(metadata: &Metadata) -> BytesMut {
    let mut out = BytesMut::new();
    put_uint(&mut out, 1, metadata.run.0);
    put_uint(&mut out, 3, metadata.src.0);
    put_uint(&mut out, 4, metadata.dst.0);
    put_text(&mut out, 5, metadata.reply_to.as_str());
    put_text(&mut out, 6, &metadata.group_id);
    put_double(&mut out, 7, metadata.ttl);
    put_text(&mut out, 8, &metadata.message_type);
    put_double(&mut out, 9, metadata.created_at.seconds());
    out
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or(0));
}

fn put_uint(out: &mut BytesMut, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3);
        put_varint(out, value);
    }
}

fn put_sint(out: &mut BytesMut, field: u64, value: i64) {
    let zigzag = (value << 1) ^ (value >> 63);
    put_uint(out, field, u64::from_ne_bytes(zigzag.to_ne_bytes()));
}

fn put_double(out: &mut BytesMut, field: u64, value: f64) {
    if value != 0.0 {
        put_varint(out, field << 3 | 1);
        out.put_f64_le(value);
    }
}

fn put_bytes(out: &mut BytesMut, field: u64, value: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

fn put_text(out: &mut BytesMut, field: u64, value: &str) {
    if !value.is_empty() {
        put_bytes(out, field, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{MessageId, NodeId, RunId};
    use crate::message::AppError;
    use crate::time::UnixTime;

    fn unhex(text: &str) -> Bytes {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
            .collect::<Vec<_>>()
            .into()
    }

    fn repeated(vectors: &[(&str, &str, &str)], check: impl Fn(&str, Bytes, &str)) {
        for (name, hex, id) in vectors {
            check(name, unhex(hex), id);
        }
    }

    /// The vectors of the protocol document that are given as bytes.
    const VECTORS: &[(&str, &str, &str)] = &[
        (
            "V1",
            "41727261794368756e6b2020340001020304",
            "9399e94d744f08230a4c49e7b1e39010f368e001acaecffbd9efaddd1716d052",
        ),
        (
            "V1 empty",
            "41727261794368756e6b20203000",
            "f14239a19cbce3bf146f341485df39b5e3c19e6b93ca30d0f977cafd0544412d",
        ),
        (
            "V2",
            "41727261792039333939653934643734346630383233306134633439653762316533393031306633363865303031616361656366666264396566616464643137313664303532203833007b226474797065223a2022666c6f61743332222c20227368617065223a205b315d2c20227374797065223a20226e756d70792e6e646172726179222c202261727261796368756e6b5f696473223a205b305d7d",
            "11f2a5a2dc9272f95b2b8eaf2221cac9e003dc8520c5e296e1e99d29cb2d1a6e",
        ),
        (
            "V3",
            "41727261795265636f7264203131663261356132646339323732663935623262386561663232323163616339653030336463383532306335653239366531653939643239636232643161366520373300\
7b2277223a202231316632613561326463393237326639356232623865616632323231636163396530303364633835323063356532393665316539396432396362326431613665227d",
            "4a24115cf27dc4c63cbf7b57756ecce2e3e4f7d45da7d4be48ddabe4edc55167",
        ),
        (
            "V4",
            "4d65747269635265636f726420203939000a110a046c6f7373120909000000000000e03f0a070a016e120210060a0c0a016c1207b201040a0202040a100a0175120b18808080808080808080010a1a0a01661215aa01120a10000000000000f03f00000000000004400a090a036e656712021001",
            "f934b77462167c6b47aa0270eb54a575e65f13ff79f2211f0c9f00768407090e",
        ),
        (
            "V4 empty",
            "4d65747269635265636f726420203000",
            "fab1d54fe101e94e092e8a4efc3c72b52fe1198c6af2aa4ec768d013e78854c5",
        ),
        (
            "V5",
            "436f6e6669675265636f72642020313135000a0f0a026c721209099a9999999999b93f0a070a0165120210020a070a0162120220010a080a017312032a01780a0a0a0262791204320200ff0a0d0a02626c1207c201040a0201000a0f0a02736c1209ca01060a01610a01620a0d0a0362796c1206d201030a01610a090a02656c1203c20100",
            "563047baf69d777c6a875d0e5440ee140534bef77a6fd1427f5c8fdb463f19e7",
        ),
        (
            "V6",
            "5265636f726444696374202032007b7d",
            "a5fc9cb09319dc373f7a8f11a799fd0d90c359120fd6241c230de34a4f93be3e",
        ),
        (
            "V7",
            "4d65737361676520643230633163323738303963393631366538356466653238643733323533643234653264643363366230623962616135656166353161653634323161333735352033360\
00a22082a1801200732013139000000000020ac404205747261696e49000020506c2eda41",
            "5d4ce5fb3416596edf96248b830e600ccc35b01466d1c5fa69e56ef93985ce1d",
        ),
        (
            "V8",
            "4d6573736167652020313132000a64082a180720012a40356434636535666233343136353936656466393632343862383330653630306363633335623031343636643163356661363965353665663933393835636531643201313900000000801eac404205747261696e49000050506c2eda411a0808041204626f6f6d",
            "23071c608d6281501bdcabfc9af035cd6ffaa20f75faa9f3aeee651940dea459",
        ),
        (
            "V9",
            "4d65737361676520203933000a57180120012a4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162420673797374656d49000080506c2eda411a020806",
            "0ce05f129e9567d485dd6e6cc3970c1a85135dd5c62e7aba0715b6745c09c8e5",
        ),
    ];

    #[test]
    fn vectors_hash_to_their_ids_and_pass_the_check() {
        repeated(VECTORS, |name, bytes, id| {
            assert_eq!(ObjectId::of(&bytes).to_string(), id, "{name}");
            let body = check(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(bytes.ends_with(&body), "{name}");
        });
    }

    #[test]
    fn a_damaged_head_is_refused() {
        repeated(VECTORS, |name, bytes, _| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap();
            for at in 0..=end {
                let mut damaged = bytes.to_vec();
                // A child id damaged into another hexadecimal digit is still an id.
                damaged[at] = 0xff;
                assert!(check(&damaged.into()).is_err(), "{name} at {at}");
            }
        });
    }

    #[test]
    fn error_messages_are_laid_out_as_flower_does() {
        let v7 = "5d4ce5fb3416596edf96248b830e600ccc35b01466d1c5fa69e56ef93985ce1d";
        let boom = Message {
            metadata: Metadata {
                run: RunId(42),
                id: MessageId::new("ignored"),
                src: NodeId(7),
                dst: NodeId::SUPERLINK,
                reply_to: MessageId::new(v7),
                group_id: "1".into(),
                ttl: 3599.25,
                message_type: "train".into(),
                created_at: UnixTime::new(1_757_000_001.25),
            },
            payload: Payload::Error(AppError {
                code: 2,
                reason: Some("boom".into()),
            }),
        };
        let lost = Message {
            metadata: Metadata {
                run: RunId(0),
                id: MessageId::new(""),
                src: NodeId::SUPERLINK,
                dst: NodeId::SUPERLINK,
                reply_to: MessageId::new("ab".repeat(32)),
                group_id: String::new(),
                ttl: 0.0,
                message_type: "system".into(),
                created_at: UnixTime::new(1_757_000_002.0),
            },
            payload: Payload::Error(AppError {
                code: 3,
                reason: None,
            }),
        };
        for (message, vector) in [(boom, VECTORS[9]), (lost, VECTORS[10])] {
            let (sealed, object) = seal_error(message);
            assert_eq!(object, unhex(vector.1), "{}", vector.0);
            assert_eq!(sealed.metadata.id.as_str(), vector.2, "{}", vector.0);
        }
    }
}
