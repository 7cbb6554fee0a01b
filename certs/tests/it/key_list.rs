//! Public key lists, protocol section 5.1.3; the numbers are those of the conformance checklist, section 9.2.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use flwr_certs::{
    AddOutcome, AllowList, CellProblem, ListError, NodeKeyPair, NodePublicKey, Reload, add_to_list,
};

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    keys: Vec<NodePublicKey>,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    Fixture {
        path: directory.path().join("keys.csv"),
        _directory: directory,
        keys: (0..3)
            .map(|_| NodeKeyPair::generate().unwrap().public().clone())
            .collect(),
    }
}

impl Fixture {
    /// Writes a text in which `$0`, `$1`, `$2` stand for keys without comment.
    fn write(&self, template: &str) {
        let mut text = template.to_owned();
        for (index, key) in self.keys.iter().enumerate() {
            text = text.replace(&format!("${index}"), &key.to_openssh(""));
        }
        fs::write(&self.path, text).unwrap();
    }

    fn load(&self, template: &str) -> Result<AllowList, ListError> {
        self.write(template);
        AllowList::load(&self.path)
    }

    fn known(&self, list: &AllowList) -> Vec<usize> {
        (0..self.keys.len())
            .filter(|index| list.contains(&self.keys[*index]))
            .collect()
    }
}

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS";

#[test]
fn c29_accepted_forms() {
    let fixture = fixture();
    for (template, want) in [
        ("$0\n$1\n$2\n", 3),
        ("$0\n$1", 2),
        ("$0,$1\n$2\n", 3),
        ("$0\r\n$1\r\n", 2),
        ("\n\n$0\n\n$1\n\n", 2),
        ("$0 \t\n$1  \n", 2),
        ("$0 node 1\n$1 node \"2\"\n", 2),
        ("\"$0\"\n\"$1 with, a comma\",$2\n", 3),
        ("$0\n$0 again\n", 1),
        ("", 0),
        ("\n\r\n  \n", 0),
        // Beyond Flower.
        ("  $0\n\t$1\n", 2),
        ("$0, $1 , $2\n", 3),
        ("$0,\n,$1,,\n", 2),
        ("\u{feff}$0\n$1\n", 2),
        ("\u{feff}", 0),
        ("\"$0\n\"\n$1\n", 2),
    ] {
        let list = fixture.load(template).unwrap();
        assert_eq!(list.len(), want, "{template:?}");
        assert_eq!(fixture.known(&list).len(), want, "{template:?}");
    }
}

#[test]
fn every_kind_is_listed() {
    let fixture = fixture();
    let p256 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU= generator";
    let list = fixture
        .load(&format!("{p256}\n$0\n{ED25519} node 2\n"))
        .unwrap();
    assert_eq!(list.len(), 3);
    for line in [p256, ED25519] {
        assert!(list.contains(&NodePublicKey::from_openssh(line).unwrap()));
    }
}

#[test]
fn c30_refused_forms_name_the_line() {
    let fixture = fixture();
    let key_type = |name: &str| CellProblem::KeyType(name.to_owned());
    for (template, line, want) in [
        (String::from("$0\nssh-dss AAAA\n"), 2, key_type("ssh-dss")),
        ("\n\nssh-rsa AAAA\n".into(), 3, key_type("ssh-rsa")),
        (
            "$0\nsk-ecdsa-sha2-nistp256@openssh.com AAAA\n".into(),
            2,
            key_type("sk-ecdsa-sha2-nistp256@openssh.com"),
        ),
        ("$0\n$1\njunk\n".into(), 3, CellProblem::NotOpenSsh),
        ("# nodes\n$0\n".into(), 1, CellProblem::NotOpenSsh),
        ("$0 alice, laptop\n".into(), 1, CellProblem::AfterComma),
        ("ecdsa-sha2-nistp384\n".into(), 1, CellProblem::NotOpenSsh),
        (
            "$0\necdsa-sha2-nistp384 AAAA\n".into(),
            2,
            CellProblem::Damaged,
        ),
        (
            "ecdsa-sha2-nistp384 AAAA!\n".into(),
            1,
            CellProblem::Damaged,
        ),
        ("\"$0\n$1\n".into(), 1, CellProblem::LineBreak),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n".into(),
            1,
            CellProblem::Pem,
        ),
    ] {
        let error = fixture.load(&template).unwrap_err();
        let ListError::Cell {
            path,
            line: at,
            problem,
        } = &error
        else {
            panic!("{template:?}: {error}");
        };
        assert_eq!(
            (path, *at, problem),
            (&fixture.path, line, &want),
            "{template:?}"
        );
        assert!(error.to_string().starts_with(&format!("line {line} of ")));
    }
    fs::write(&fixture.path, b"\xff\xfe").unwrap();
    let error = AllowList::load(&fixture.path).unwrap_err();
    assert!(matches!(
        error,
        ListError::Cell {
            line: 1,
            problem: CellProblem::NotUtf8,
            ..
        }
    ));
}

#[test]
fn a_key_type_must_match_its_data() {
    let fixture = fixture();
    fixture.write("$0");
    let text = fs::read_to_string(&fixture.path).unwrap();
    fs::write(&fixture.path, text.replace("nistp384 ", "nistp256 ")).unwrap();
    let error = AllowList::load(&fixture.path).unwrap_err();
    assert!(matches!(
        error,
        ListError::Cell {
            problem: CellProblem::Damaged,
            ..
        }
    ));
}

#[test]
fn c30_c31_missing_is_an_error_and_empty_is_not() {
    let fixture = fixture();
    let error = AllowList::load(&fixture.path).unwrap_err();
    assert!(matches!(error, ListError::Missing { .. }), "{error}");
    let error = AllowList::load(fixture.path.parent().unwrap()).unwrap_err();
    assert!(matches!(error, ListError::Unreadable { .. }), "{error}");
    assert!(fixture.load("").unwrap().is_empty());
}

#[test]
fn changes_are_read_and_broken_ones_kept_out() {
    let fixture = fixture();
    let list = fixture.load("$0\n").unwrap();
    assert_eq!(list.reload_if_changed().unwrap(), Reload::Unchanged);

    fixture.write("$0\n$1\n");
    assert_eq!(
        list.reload_if_changed().unwrap(),
        Reload::Reloaded {
            before: 1,
            after: 2
        }
    );
    assert_eq!(fixture.known(&list), [0, 1]);

    fixture.write("$2\njunk, and more\n");
    let error = list.reload_if_changed().unwrap_err();
    assert!(matches!(error, ListError::Cell { line: 2, .. }), "{error}");
    assert_eq!(fixture.known(&list), [0, 1]);
    assert_eq!(list.reload_if_changed().unwrap(), Reload::Unchanged);

    fs::remove_file(&fixture.path).unwrap();
    let error = list.reload_if_changed().unwrap_err();
    assert!(matches!(error, ListError::Missing { .. }), "{error}");
    assert_eq!(list.reload_if_changed().unwrap(), Reload::Unchanged);
    assert_eq!(fixture.known(&list), [0, 1]);

    fixture.write("$2\n");
    assert_eq!(
        list.reload_if_changed().unwrap(),
        Reload::Reloaded {
            before: 2,
            after: 1
        }
    );
    assert_eq!(fixture.known(&list), [2]);
}

#[test]
fn a_switched_link_is_a_change() {
    let fixture = fixture();
    fixture.write("$0\n");
    let link = fixture.path.with_extension("link");
    std::os::unix::fs::symlink(&fixture.path, &link).unwrap();
    let list = AllowList::load(&link).unwrap();
    let next = fixture.path.with_extension("next");
    fs::write(&next, fixture.keys[1].to_openssh("")).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&next, &link).unwrap();
    list.reload_if_changed().unwrap();
    assert_eq!(fixture.known(&list), [1]);
}

#[test]
fn emptied_lists_are_taken_at_the_second_look() {
    let fixture = fixture();
    let list = fixture.load("$0\n").unwrap();
    fixture.write("");
    let error = list.reload_if_changed().unwrap_err();
    assert!(
        matches!(error, ListError::Emptied { kept: 1, .. }),
        "{error}"
    );
    assert_eq!(fixture.known(&list), [0]);
    assert_eq!(
        list.reload_if_changed().unwrap(),
        Reload::Reloaded {
            before: 1,
            after: 0
        }
    );
    assert!(list.is_empty());
    assert_eq!(list.reload_if_changed().unwrap(), Reload::Unchanged);

    fixture.write("$1\n");
    list.reload_if_changed().unwrap();
    fixture.write("");
    list.reload_if_changed().unwrap_err();
    fixture.write("$1\n$2\n");
    list.reload_if_changed().unwrap();
    assert_eq!(fixture.known(&list), [1, 2], "it was an editor");
}

#[test]
fn keys_are_added_once() {
    let fixture = fixture();
    let line = fixture.keys[0].to_openssh("alice, laptop");
    let added = |len| AddOutcome::Added { len };
    assert_eq!(add_to_list(&fixture.path, &line).unwrap(), added(1));
    let text = fs::read_to_string(&fixture.path).unwrap();
    assert_eq!(text, format!("\"{line}\"\n"));
    let other = fixture.keys[0].to_openssh("bob");
    assert_eq!(
        add_to_list(&fixture.path, &other).unwrap(),
        AddOutcome::AlreadyListed { len: 1 }
    );
    assert_eq!(fs::read_to_string(&fixture.path).unwrap(), text);

    let second = format!("  {}\n", fixture.keys[1].to_openssh("say \"hi\""));
    assert_eq!(add_to_list(&fixture.path, &second).unwrap(), added(2));
    let list = AllowList::load(&fixture.path).unwrap();
    assert_eq!(fixture.known(&list), [0, 1]);
}

#[test]
fn adding_keeps_the_file_as_it_is() {
    let fixture = fixture();
    fixture.write("\r\n$0 a\r\n$1");
    fs::set_permissions(&fixture.path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::read_to_string(&fixture.path).unwrap();
    let line = fixture.keys[2].to_openssh("c");
    add_to_list(&fixture.path, &line).unwrap();
    let after = fs::read_to_string(&fixture.path).unwrap();
    assert_eq!(after, format!("{before}\r\n{line}\r\n"));
    let mode = fs::metadata(&fixture.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(AllowList::load(&fixture.path).unwrap().len(), 3);
}

#[test]
fn what_is_no_key_is_not_added() {
    let fixture = fixture();
    for line in ["", "junk", "ssh-rsa AAAA", "-----BEGIN PUBLIC KEY-----"] {
        let error = add_to_list(&fixture.path, line).unwrap_err();
        assert!(matches!(error, ListError::NewKey { .. }), "{line}: {error}");
    }
    let two = format!("{}\njunk", fixture.keys[0].to_openssh(""));
    add_to_list(&fixture.path, &two).unwrap_err();
    assert!(!fixture.path.exists());
    fixture.write("junk\n");
    let line = fixture.keys[0].to_openssh("");
    let error = add_to_list(&fixture.path, &line).unwrap_err();
    assert!(matches!(error, ListError::Cell { line: 1, .. }), "{error}");
    assert_eq!(fs::read_to_string(&fixture.path).unwrap(), "junk\n");
}

#[test]
fn many_writers_lose_nothing() {
    let fixture = fixture();
    let lines: Vec<_> = (0..16)
        .map(|index| {
            let pair = NodeKeyPair::generate().unwrap();
            pair.public().to_openssh(&format!("node {index}"))
        })
        .collect();
    std::thread::scope(|scope| {
        for line in &lines {
            scope.spawn(|| add_to_list(&fixture.path, line).unwrap());
        }
    });
    assert_eq!(AllowList::load(&fixture.path).unwrap().len(), lines.len());
}
