//! `flwr-quic keys`: what SuperNodes and SuperExecs prove themselves with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flwr_certs::{
    AddOutcome, AllowList, JoinSecret, ListError, NodeKeyPair, NodePublicKey, add_to_list,
};

use crate::{
    args::keys::{self, Command, KeyType, Node},
    exit::Exit,
    output::shell,
};

/// Does what was asked, and gives what to print.
///
/// # Errors
/// When files are in the way or cannot be read or written.
pub(crate) fn run(command: &Command) -> Result<String, Exit> {
    match command {
        Command::JoinSecret(secret) => make_join_secret(secret),
        Command::Node(node) => make(node),
    }
}

fn make_join_secret(asked: &keys::JoinSecret) -> Result<String, Exit> {
    JoinSecret::generate()
        .and_then(|secret| secret.save(&asked.out, asked.force))
        .map_err(|error| Exit::because(&error))?;
    Ok(format!(
        "wrote {} (secret: for one SuperLink or SuperNode and the SuperExecs that launch its apps)\n\n\
         Next, start the SuperLink or SuperNode with it, and give its SuperExecs the same file:\n  \
         flwr-quic superlink --appio-join-secret-file {} ...\n",
        asked.out.display(),
        shell(&asked.out)
    ))
}

fn make(node: &Node) -> Result<String, Exit> {
    // A list that cannot be added to is noticed before there is a key that is not on it.
    if let Some(list) = &node.list {
        check_list(list)?;
    }
    let replaced = public_key_beside(&node.out);
    let (pair, program) = match node.key_type {
        KeyType::P384 => (NodeKeyPair::generate(), "flower-supernode"),
        KeyType::Ed25519 => (NodeKeyPair::generate_ed25519(), "flwr-quic supernode"),
    };
    let files = pair
        .and_then(|pair| pair.save(&node.out, &comment(&node.out), node.force))
        .map_err(|error| Exit::because(&error))?;
    let mut lines = vec![
        format!(
            "wrote {} (private: stays with the SuperNode)",
            files.private_path.display()
        ),
        format!("wrote {}", files.public_path.display()),
    ];
    if node.key_type == KeyType::Ed25519 {
        lines.push(
            "stock Flower cannot use Ed25519 keys, nor a list with one: SuperNode and SuperLink have to be flwr-quic"
                .to_owned(),
        );
    }
    let (private, public) = (shell(&files.private_path), shell(&files.public_path));
    let place = if let Some(list) = &node.list {
        let added = add_to_list(list, &files.public_line).map_err(|error| Exit::because(&error))?;
        lines.extend(said_of_list(list, added, replaced.as_ref()));
        lines.push("\nNext, start the SuperLink with the list of keys that may join:".to_owned());
        shell(list)
    } else {
        lines.push(format!(
            "\nNext, add the line of {public} to a list, for example keys.csv, and start the SuperLink with it:"
        ));
        "keys.csv".to_owned()
    };
    lines.push(format!(
        "  flwr-quic superlink --auth-list-public-keys {place} ...\nand the SuperNode with its key pair:\n  \
         {program} --auth-supernode-private-key {private} --auth-supernode-public-key {public} ...\n"
    ));
    Ok(lines.join("\n"))
}

fn check_list(list: &Path) -> Result<(), Exit> {
    match AllowList::load(list) {
        Ok(_) => Ok(()),
        Err(ListError::Missing { .. }) => {
            let parent = list
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            parent.map_or(Ok(()), fs::create_dir_all).map_err(|error| {
                Exit::Problem(format!(
                    "cannot make the directory of {} ({error})",
                    list.display()
                ))
            })
        }
        Err(error) => Err(Exit::because(&error)),
    }
}

/// The public key that is about to be replaced.
fn public_key_beside(private: &Path) -> Option<NodePublicKey> {
    let mut path = private.as_os_str().to_owned();
    path.push(".pub");
    NodePublicKey::from_openssh(fs::read_to_string(PathBuf::from(path)).ok()?.trim()).ok()
}

/// The name of the file, as far as it can stand in a list.
fn comment(private: &Path) -> String {
    let name = private.file_name().unwrap_or_default().to_string_lossy();
    name.replace(
        |c: char| c.is_control() || c.is_whitespace() || c == ',' || c == '"',
        "-",
    )
}

fn said_of_list(list: &Path, added: AddOutcome, replaced: Option<&NodePublicKey>) -> Vec<String> {
    let name = list.display();
    let keys = |len| {
        if len == 1 {
            "1 key".to_owned()
        } else {
            format!("{len} keys")
        }
    };
    let mut lines = vec![match added {
        AddOutcome::Added { len } => format!("added it to {name}, which has {} now", keys(len)),
        AddOutcome::AlreadyListed { len } => {
            format!("it was in {name} before, which has {}", keys(len))
        }
    }];
    if let Some(replaced) = replaced
        && AllowList::load(list).is_ok_and(|list| list.contains(replaced))
    {
        lines.push(format!(
            "the key that was replaced is still in {name}: remove the line of {}",
            replaced.fingerprint()
        ));
    }
    lines
}
