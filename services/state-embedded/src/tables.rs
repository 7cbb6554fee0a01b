//! The tables and what their rows say.

use std::sync::OnceLock;

use bytes::Bytes;
use flwr_api::{
    AppError, FabHash, FabInfo, Message, MessageId, Metadata, NodeId, ObjectId, Payload, Phase,
    Run, RunId, RunStatus, SubStatus, Token, UnixTime,
};
use flwr_state::rows::{InstructionRow, NodeRow, Of, ReplyRow, RunRow, TokenRow};
use flwr_transport::PublicKey;

use crate::row::{Reader, Table, Unfit, Values};

pub(crate) static META: Table = table("meta", &["name"], 2);
pub(crate) static NODES: Table = table("nodes", &["id"], 4);
pub(crate) static RUNS: Table = table("runs", &["id"], 18);
pub(crate) static TOKENS: Table = table("tokens", &["token"], 4);
pub(crate) static INSTRUCTIONS: Table = table("instructions", &["run", "name"], 18);
pub(crate) static REPLIES: Table = table("replies", &["run", "name", "of_nothing"], 17);
pub(crate) static UNWANTED: Table = table("unwanted", &["run", "root"], 2);
pub(crate) static ABANDONED: Table = table("abandoned", &["run", "node", "root"], 3);
pub(crate) static OBJECTS: Table = table("objects", &["id"], 2);
pub(crate) static HOLDS: Table = table("holds", &["run", "object"], 2);
pub(crate) static CONTENTS: Table = table("contents", &["object"], 2);
pub(crate) static GONE: Table = table("gone", &["number"], 2);
pub(crate) static LOGS: Table = table("logs", &["run", "time"], 3);

const fn table(name: &'static str, key: &'static [&'static str], columns: usize) -> Table {
    Table {
        name,
        key,
        columns,
        insert: OnceLock::new(),
    }
}

/// A key that is one number.
pub(crate) fn number(id: u64) -> Values {
    Values::default().id(id)
}

/// A key that is one hash.
pub(crate) fn hash(id: ObjectId) -> Values {
    Values::default().bytes(&id.0)
}

pub(crate) fn node(row: &NodeRow) -> Values {
    let key = row.key.as_ref().map(|key| key.spki_der().to_vec());
    number(row.id.0)
        .with(key)
        .real(row.online_until.seconds())
        .with(row.used)
}

pub(crate) fn read_node(values: Values) -> Result<NodeRow, Unfit> {
    let mut values = values.reader();
    Ok(NodeRow {
        id: NodeId(values.id()?),
        key: values
            .bytes_or_nothing()?
            .map(|key| PublicKey::from_spki_der(key.into())),
        online_until: time(&mut values)?,
        used: values.flag()?,
    })
}

pub(crate) fn run(row: &RunRow) -> Result<Values, postcard::Error> {
    let RunRow { run, .. } = row;
    let when = |at: Option<UnixTime>| at.map(UnixTime::seconds);
    Ok(number(run.id.0)
        .id(row.place as u64)
        .id(run.series)
        .text(&run.federation)
        .text(&run.fab.id)
        .text(&run.fab.version)
        .bytes(&run.fab.hash.0)
        .with(postcard::to_stdvec(&run.overrides)?)
        .text(phase(run.status.phase))
        .text(sub_status(run.status.sub))
        .text(&run.status.details)
        .real(run.pending_at.seconds())
        .real_or_nothing(when(run.starting_at))
        .real_or_nothing(when(run.running_at))
        .real_or_nothing(when(run.finished_at))
        .with(row.options.as_ref().map(|options| options.to_vec()))
        .with(row.context.as_ref().map(|context| context.to_vec()))
        .real_or_nothing(when(row.lease_end)))
}

pub(crate) fn read_run(values: Values) -> Result<RunRow, Unfit> {
    let mut values = values.reader();
    let id = RunId(values.id()?);
    let place = usize::try_from(values.id()?).map_err(|_| Unfit)?;
    let run = Run {
        id,
        series: values.id()?,
        federation: values.text()?,
        fab: FabInfo {
            id: values.text()?,
            version: values.text()?,
            hash: FabHash(values.hash()?),
        },
        overrides: postcard::from_bytes(&values.bytes()?).map_err(|_| Unfit)?,
        status: RunStatus {
            phase: read_phase(&values.text()?)?,
            sub: read_sub_status(&values.text()?)?,
            details: values.text()?,
        },
        pending_at: time(&mut values)?,
        starting_at: time_or_nothing(&mut values)?,
        running_at: time_or_nothing(&mut values)?,
        finished_at: time_or_nothing(&mut values)?,
    };
    Ok(RunRow {
        run,
        place,
        options: values.bytes_or_nothing()?.map(Bytes::from),
        context: values.bytes_or_nothing()?.map(Bytes::from),
        lease_end: time_or_nothing(&mut values)?,
    })
}

pub(crate) fn token(row: &TokenRow) -> Values {
    Values::default()
        .text(row.token.expose())
        .id(row.run.0)
        .real(row.issued_at.seconds())
        .with(row.spent)
}

pub(crate) fn read_token(values: Values) -> Result<TokenRow, Unfit> {
    let mut values = values.reader();
    Ok(TokenRow {
        token: Token::presented(values.text()?),
        run: RunId(values.id()?),
        issued_at: time(&mut values)?,
        spent: values.flag()?,
    })
}

pub(crate) fn instruction(name: &str, row: &InstructionRow) -> Values {
    let values = number(row.run.0)
        .text(name)
        .id(row.arrival)
        .with(row.offered)
        .with(row.confirmed)
        .with(row.retired);
    message(values, &row.message)
}

pub(crate) fn read_instruction(values: Values) -> Result<InstructionRow, Unfit> {
    let mut values = values.reader();
    let run = RunId(values.id()?);
    values.text()?;
    Ok(InstructionRow {
        run,
        arrival: values.id()?,
        offered: values.flag()?,
        confirmed: values.flag()?,
        retired: values.flag()?,
        message: read_message(&mut values)?,
    })
}

pub(crate) fn reply_key(run: RunId, name: &str, of: Of) -> Values {
    number(run.0).text(name).with(of == Of::Nothing)
}

pub(crate) fn reply(name: &str, row: &ReplyRow) -> Values {
    let values = reply_key(row.run, name, row.of)
        .with(row.settled)
        .with(row.synthetic);
    message(values, &row.message)
}

pub(crate) fn read_reply(values: Values) -> Result<ReplyRow, Unfit> {
    let mut values = values.reader();
    let run = RunId(values.id()?);
    values.text()?;
    Ok(ReplyRow {
        run,
        of: if values.flag()? {
            Of::Nothing
        } else {
            Of::Instruction
        },
        settled: values.flag()?,
        synthetic: values.flag()?,
        message: read_message(&mut values)?,
    })
}

fn message(values: Values, message: &Message) -> Values {
    let metadata = &message.metadata;
    let values = values
        .id(metadata.run.0)
        .text(metadata.id.as_str())
        .id(metadata.src.0)
        .id(metadata.dst.0)
        .text(metadata.reply_to.as_str())
        .text(&metadata.group_id)
        .real(metadata.ttl)
        .text(&metadata.message_type)
        .real(metadata.created_at.seconds());
    let (content, code, reason) = match &message.payload {
        Payload::Content(content) => (Some(content.to_vec()), None, None),
        Payload::Error(error) => (None, Some(error.code), error.reason.clone()),
    };
    values.with(content).with(code).with(reason)
}

fn read_message(values: &mut Reader) -> Result<Message, Unfit> {
    let metadata = Metadata {
        run: RunId(values.id()?),
        id: MessageId::new(values.text()?),
        src: NodeId(values.id()?),
        dst: NodeId(values.id()?),
        reply_to: MessageId::new(values.text()?),
        group_id: values.text()?,
        ttl: values.real_or_nothing()?.unwrap_or(f64::NAN),
        message_type: values.text()?,
        created_at: time(values)?,
    };
    let payload = match values.bytes_or_nothing()? {
        Some(content) => Payload::Content(content.into()),
        None => Payload::Error(AppError {
            code: values.integer()?,
            reason: values.text_or_nothing()?,
        }),
    };
    Ok(Message { metadata, payload })
}

fn time(values: &mut Reader) -> Result<UnixTime, Unfit> {
    values.real().map(UnixTime::new)
}

fn time_or_nothing(values: &mut Reader) -> Result<Option<UnixTime>, Unfit> {
    Ok(values.real_or_nothing()?.map(UnixTime::new))
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Finished => "finished",
    }
}

fn read_phase(text: &str) -> Result<Phase, Unfit> {
    let phases = [
        Phase::Pending,
        Phase::Starting,
        Phase::Running,
        Phase::Finished,
    ];
    let found = phases
        .into_iter()
        .find(|candidate| phase(*candidate) == text);
    found.ok_or(Unfit)
}

fn sub_status(sub: SubStatus) -> &'static str {
    match sub {
        SubStatus::None => "",
        SubStatus::Completed => "completed",
        SubStatus::Failed => "failed",
        SubStatus::Stopped => "stopped",
    }
}

fn read_sub_status(text: &str) -> Result<SubStatus, Unfit> {
    let all = [
        SubStatus::None,
        SubStatus::Completed,
        SubStatus::Failed,
        SubStatus::Stopped,
    ];
    let found = all
        .into_iter()
        .find(|candidate| sub_status(*candidate) == text);
    found.ok_or(Unfit)
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
