//! Encodings equal the recorded ones byte by byte.

use std::fmt::Debug;

use bytes::Bytes;

use flwr_proto::health::{HealthCheckResponse, health_check_response::ServingStatus};
use flwr_proto::v1_22::{
    BoolList, BytesList, ConfigRecord, ConfigRecordValue, DoubleList, Error, Message, Metadata,
    MetricRecord, MetricRecordValue, SintList, StringList, config_record, config_record_value,
    metric_record, metric_record_value,
};

use crate::{body, instruction_metadata, unhex};

const METRICS: &str = "4d65747269635265636f726420203939000a110a046c6f7373120909000000000000e0\
    3f0a070a016e120210060a0c0a016c1207b201040a0202040a100a0175120b18808080808080808080010a1a0a0166\
    1215aa01120a10000000000000f03f00000000000004400a090a036e656712021001";

const CONFIG: &str = "436f6e6669675265636f72642020313135000a0f0a026c721209099a9999999999b93f0a\
    070a0165120210020a070a0162120220010a080a017312032a01780a0a0a0262791204320200ff0a0d0a02626c1207\
    c201040a0201000a0f0a02736c1209ca01060a01610a01620a0d0a0362796c1206d201030a01610a090a02656c1203\
    c20100";

const INSTRUCTION: &str = "4d6573736167652064323063316332373830396339363136653835646665323864\
    373332353364323465326464336336623062396261613565616635316165363432316133373535203336000a22082a\
    1801200732013139000000000020ac404205747261696e49000020506c2eda41";

const INSTRUCTION_ID: &str = "5d4ce5fb3416596edf96248b830e600ccc35b01466d1c5fa69e56ef93985ce1d";

const ERROR_REPLY: &str = "4d6573736167652020313132000a64082a180720012a4035643463653566623334\
    3136353936656466393632343862383330653630306363633335623031343636643163356661363965353665663933\
    393835636531643201313900000000801eac404205747261696e49000050506c2eda411a0808041204626f6f6d";

const SYNTHETIC_ERROR: &str = "4d65737361676520203933000a57180120012a406162616261626162616261\
    6261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162\
    616261626162420673797374656d49000080506c2eda411a020806";

const STRIPPED: &str = "0a26082a120261621801200732013139000000000020ac404205747261696e49000020\
    506c2eda411200";

/// `message` encodes to `bytes` and `bytes` decode to `message`.
fn check<M: prost::Message + Default + PartialEq + Debug>(message: &M, bytes: &Bytes) {
    assert_eq!(Bytes::from(message.encode_to_vec()), *bytes);
    assert_eq!(
        M::decode(bytes.clone()).expect("golden bytes decode"),
        *message
    );
}

#[test]
fn instruction_object() {
    let message = Message {
        metadata: Some(instruction_metadata()),
        content: None,
        error: None,
    };
    check(&message, &body(INSTRUCTION));
}

#[test]
fn error_reply_object() {
    let message = Message {
        metadata: Some(Metadata {
            run_id: 42,
            src_node_id: 7,
            dst_node_id: 1,
            reply_to_message_id: INSTRUCTION_ID.into(),
            group_id: "1".into(),
            ttl: 3599.25,
            message_type: "train".into(),
            created_at: 1_757_000_001.25,
            ..Metadata::default()
        }),
        content: None,
        error: Some(Error {
            code: 2,
            reason: "boom".into(),
        }),
    };
    check(&message, &body(ERROR_REPLY));
}

#[test]
fn synthetic_error_object_omits_zeros() {
    let message = Message {
        metadata: Some(Metadata {
            src_node_id: 1,
            dst_node_id: 1,
            reply_to_message_id: "ab".repeat(32),
            message_type: "system".into(),
            created_at: 1_757_000_002.0,
            ..Metadata::default()
        }),
        content: None,
        error: Some(Error {
            code: 3,
            reason: String::new(),
        }),
    };
    check(&message, &body(SYNTHETIC_ERROR));
}

#[test]
fn stripped_message_keeps_empty_content() {
    let message = Message {
        metadata: Some(Metadata {
            message_id: "ab".into(),
            ..instruction_metadata()
        }),
        content: Some(Bytes::new()),
        error: None,
    };
    check(&message, &unhex(STRIPPED));
}

#[test]
fn metric_record() {
    use metric_record_value::Value;

    let items = [
        ("loss", Value::Double(0.5)),
        ("n", Value::Sint64(3)),
        ("l", Value::SintList(SintList { vals: vec![1, 2] })),
        ("u", Value::Uint64(1 << 63)),
        (
            "f",
            Value::DoubleList(DoubleList {
                vals: vec![1.0, 2.5],
            }),
        ),
        ("neg", Value::Sint64(-1)),
    ]
    .map(|(key, value)| metric_record::Item {
        key: key.into(),
        value: Some(MetricRecordValue { value: Some(value) }),
    });
    let record = MetricRecord {
        items: items.into(),
    };
    check(&record, &body(METRICS));
}

#[test]
fn config_record() {
    use config_record_value::Value;

    let items = [
        ("lr", Value::Double(0.1)),
        ("e", Value::Sint64(1)),
        ("b", Value::Bool(true)),
        ("s", Value::String("x".into())),
        ("by", Value::Bytes(Bytes::from_static(b"\x00\xff"))),
        (
            "bl",
            Value::BoolList(BoolList {
                vals: vec![true, false],
            }),
        ),
        (
            "sl",
            Value::StringList(StringList {
                vals: vec!["a".into(), "b".into()],
            }),
        ),
        (
            "byl",
            Value::BytesList(BytesList {
                vals: vec![Bytes::from_static(b"a")],
            }),
        ),
        ("el", Value::BoolList(BoolList { vals: vec![] })),
    ]
    .map(|(key, value)| config_record::Item {
        key: key.into(),
        value: Some(ConfigRecordValue { value: Some(value) }),
    });
    let record = ConfigRecord {
        items: items.into(),
    };
    check(&record, &body(CONFIG));
}

#[test]
fn serving() {
    let status = ServingStatus::Serving.into();
    check(&HealthCheckResponse { status }, &unhex("0801"));
}
