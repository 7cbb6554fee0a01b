//! Opaque fields: same wire format as the nested message, relayed untouched.

use bytes::Bytes;
use prost::Message as _;

use flwr_proto::v1_22::{
    Array, ArrayRecord, ConfigRecord, ConfigRecordValue, Context, Error, Message, Metadata,
    PullAppInputsResponse, PullObjectResponse, PushAppOutputsRequest, RecordDict,
    RequestTokenResponse, Scalar, StartRunResponse, array_record, config_record,
    config_record_value, record_dict, scalar,
};

use crate::{instruction_metadata, opaque};

/// `Message` with its content as a nested message, as peers declare it.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedMessage {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    content: Option<RecordDict>,
    #[prost(message, optional, tag = "3")]
    error: Option<Error>,
}

fn records() -> RecordDict {
    let array = Array {
        dtype: "float32".into(),
        shape: vec![1],
        stype: "numpy.ndarray".into(),
        data: Bytes::from_static(&[1, 2, 3, 4]),
    };
    let arrays = ArrayRecord {
        items: vec![array_record::Item {
            key: "w".into(),
            value: Some(array),
        }],
    };
    let settings = ConfigRecord {
        items: vec![config_record::Item {
            key: "lr".into(),
            value: Some(ConfigRecordValue {
                value: Some(config_record_value::Value::Double(0.5)),
            }),
        }],
    };
    RecordDict {
        items: vec![
            record_dict::Item {
                key: "arrays".into(),
                value: Some(record_dict::item::Value::ArrayRecord(arrays)),
            },
            record_dict::Item {
                key: "config".into(),
                value: Some(record_dict::item::Value::ConfigRecord(settings)),
            },
        ],
    }
}

#[test]
fn content_encodes_as_the_typed_one() {
    let typed = TypedMessage {
        metadata: Some(instruction_metadata()),
        content: Some(records()),
        error: None,
    };
    let wire = Bytes::from(typed.encode_to_vec());

    let relayed = Message::decode(wire.clone()).unwrap();
    assert_eq!(relayed.content, Some(opaque(&records())));
    assert_eq!(Bytes::from(relayed.encode_to_vec()), wire);
    assert_eq!(
        TypedMessage::decode(relayed.encode_to_vec().as_slice()).unwrap(),
        typed
    );
}

#[test]
fn content_is_sliced_not_copied() {
    let message = Message {
        content: Some(opaque(&records())),
        ..Message::default()
    };
    let wire = Bytes::from(message.encode_to_vec());
    let content = Message::decode(wire.clone()).unwrap().content.unwrap();
    assert!(wire.as_ptr_range().contains(&content.as_ptr()));
}

#[test]
fn content_which_the_typed_message_would_reorder_is_relayed_as_is() {
    // Two items, of which the first has its key after its value, and a field
    // from the future.
    let content = Bytes::from_static(b"\x0a\x05\x1a\x00\x0a\x01a\x0a\x05\x0a\x01b\x22\x00\x78\x01");
    let reencoded = RecordDict::decode(content.clone()).unwrap();
    assert_ne!(opaque(&reencoded), content);

    let mut wire = vec![0x12, u8::try_from(content.len()).unwrap()];
    wire.extend_from_slice(&content);
    let message = Message::decode(wire.as_slice()).unwrap();
    assert_eq!(message.encode_to_vec(), wire);
}

#[test]
fn absent_content_stays_absent() {
    let error = Message {
        error: Some(Error::default()),
        ..Message::default()
    };
    let relayed = Message::decode(error.encode_to_vec().as_slice()).unwrap();
    assert_eq!(relayed.content, None);
    assert_eq!(relayed, error);
}

#[test]
fn context_passes_from_outputs_to_inputs() {
    let wide = Scalar {
        scalar: Some(scalar::Scalar::Uint64(u64::MAX)),
    };
    let context = Context {
        run_id: u64::MAX,
        node_id: 7,
        node_config: [("b".to_owned(), wide.clone()), ("a".to_owned(), wide)].into(),
        state: Some(records()),
        run_config: [].into(),
    };
    let pushed = PushAppOutputsRequest {
        token: "t".into(),
        run_id: 42,
        context: Some(context.encode_to_vec().into()),
    };
    let received = PushAppOutputsRequest::decode(pushed.encode_to_vec().as_slice()).unwrap();
    let pulled = PullAppInputsResponse {
        context: received.context,
        ..PullAppInputsResponse::default()
    };
    assert_eq!(Context::decode(pulled.context.unwrap()).unwrap(), context);
}

#[test]
fn optional_numbers_tell_zero_from_absent() {
    let absent = StartRunResponse { run_id: None };
    let zero = StartRunResponse { run_id: Some(0) };
    assert_eq!(absent.encode_to_vec(), b"");
    assert_eq!(zero.encode_to_vec(), b"\x08\x00");
}

#[test]
fn debug_shows_neither_tokens_nor_contents() {
    let token = RequestTokenResponse {
        token: "hush".into(),
    };
    assert_eq!(
        format!("{token:?}"),
        "RequestTokenResponse { token: <4 bytes> }"
    );
    let object = PullObjectResponse {
        object_found: true,
        object_available: true,
        object_content: Bytes::from_static(b"hush"),
    };
    assert_eq!(
        format!("{object:?}"),
        "PullObjectResponse { object_found: true, object_available: true, object_content: <4 bytes> }"
    );
    assert_eq!(
        format!("{:?}", Message::default()),
        "Message { metadata: None, error: None, content: None }"
    );
}
