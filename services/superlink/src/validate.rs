//! What a message must look like before it is stored (Flower 1.22, `server/utils/validator.py`).

use flwr_api::{Message, NodeId, UnixTime};

/// Messages claiming to be older than 2025-02-28 come from a clock that is wrong.
const CREATED_AT_MIN: f64 = 1_740_700_800.0;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the SuperLink to a node.
    Instruction,
    /// From a node to the SuperLink.
    Reply,
}

/// Every rule the message breaks, in Flower's order; empty if it is valid.
#[must_use]
pub fn broken_rules(message: &Message, direction: Direction, now: UnixTime) -> Vec<&'static str> {
    let metadata = &message.metadata;
    let superlink_sends = metadata.src == NodeId::SUPERLINK;
    let superlink_receives = metadata.dst == NodeId::SUPERLINK;
    let instruction = direction == Direction::Instruction;
    // Written so that a NaN breaks the rule.
    let recent = metadata.created_at.seconds() >= CREATED_AT_MIN;
    let positive = metadata.ttl > 0.0;
    let alive = metadata.expires_at() > now;
    [
        (metadata.id.as_str().is_empty(), "empty `message_id`"),
        (!recent, "`created_at` is before 2025-02-28"),
        (!positive, "`ttl` is not positive"),
        (!alive, "the message has expired"),
        (metadata.src == NodeId::NONE, "`src_node_id` is not set"),
        (metadata.dst == NodeId::NONE, "`dst_node_id` is not set"),
        (
            !is_message_type(&metadata.message_type),
            "`message_type` is no message type",
        ),
        (
            instruction && metadata.replied().is_some(),
            "`reply_to_message_id` is set on an instruction",
        ),
        (
            !instruction && metadata.replied().is_none(),
            "`reply_to_message_id` is not set on a reply",
        ),
        (
            instruction && !superlink_sends,
            "`src_node_id` is not the SuperLink's on an instruction",
        ),
        (
            !instruction && superlink_sends,
            "`src_node_id` is the SuperLink's on a reply",
        ),
        (
            instruction && superlink_receives,
            "`dst_node_id` is the SuperLink's on an instruction",
        ),
        (
            !instruction && !superlink_receives,
            "`dst_node_id` is not the SuperLink's on a reply",
        ),
    ]
    .into_iter()
    .filter_map(|(broken, rule)| broken.then_some(rule))
    .collect()
}

/// A category, or a category and an action that is an identifier, or one of the names from before
/// there were categories (Flower 1.22, `app/metadata.py`).
fn is_message_type(text: &str) -> bool {
    const CATEGORIES: [&str; 4] = ["train", "evaluate", "query", "system"];
    const LEGACY: [&str; 3] = ["get_properties", "get_parameters", "reconnect"];
    match text.split_once('.') {
        None => CATEGORIES.contains(&text) || LEGACY.contains(&text),
        Some((category, action)) => CATEGORIES.contains(&category) && is_identifier(action),
    }
}

/// Close to Python's rule: letters and underscores, then also digits and marks, of any script.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c == '\u{b7}' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flwr_api::{MessageId, Metadata, Payload, RunId};

    const NOW: f64 = 1_757_000_000.0;

    fn message(change: impl FnOnce(&mut Metadata)) -> Message {
        let mut metadata = Metadata {
            run: RunId(1),
            id: MessageId::new("ab"),
            src: NodeId(1),
            dst: NodeId(7),
            reply_to: MessageId::new(""),
            group_id: String::new(),
            ttl: 10.0,
            message_type: "train".into(),
            created_at: UnixTime::new(NOW - 5.0),
        };
        change(&mut metadata);
        Message {
            metadata,
            payload: Payload::Content(bytes::Bytes::new()),
        }
    }

    fn reply(change: impl FnOnce(&mut Metadata)) -> Message {
        message(|metadata| {
            metadata.src = NodeId(7);
            metadata.dst = NodeId(1);
            metadata.reply_to = MessageId::new("cd");
            change(metadata);
        })
    }

    #[test]
    fn valid_messages_break_nothing() {
        let now = UnixTime::new(NOW);
        assert!(broken_rules(&message(|_| ()), Direction::Instruction, now).is_empty());
        assert!(broken_rules(&reply(|_| ()), Direction::Reply, now).is_empty());
    }

    #[test]
    fn each_rule_is_found_alone() {
        type Change = fn(&mut Metadata);
        let cases: [(Change, usize); 9] = [
            (|m| m.id = MessageId::new(""), 1),
            (|m| (m.created_at, m.ttl) = (UnixTime::new(1.0), 1e10), 1),
            (|m| m.ttl = f64::NAN, 2),
            (|m| m.ttl = 5.0, 1),
            (|m| m.src = NodeId(0), 2),
            (|m| m.dst = NodeId(0), 1),
            (|m| m.dst = NodeId(1), 1),
            (|m| m.message_type = "train.".into(), 1),
            (|m| m.reply_to = MessageId::new("x"), 1),
        ];
        for (index, (change, count)) in cases.into_iter().enumerate() {
            let broken = broken_rules(&message(change), Direction::Instruction, UnixTime::new(NOW));
            assert_eq!(broken.len(), count, "case {index}: {broken:?}");
        }
        let broken = broken_rules(&message(|_| ()), Direction::Reply, UnixTime::new(NOW));
        assert_eq!(broken.len(), 3, "{broken:?}");
    }

    #[test]
    fn message_types() {
        for good in [
            "train",
            "query.stats",
            "evaluate._x1",
            "system.día",
            "reconnect",
        ] {
            assert!(is_message_type(good), "{good}");
        }
        for bad in [
            "",
            "fit",
            "train.",
            "train.1x",
            "train.a.b",
            "train.a b",
            "get_properties.x",
        ] {
            assert!(!is_message_type(bad), "{bad}");
        }
    }
}
