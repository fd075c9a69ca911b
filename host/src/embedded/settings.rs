//! How the server is set: given on its command line at each start, so that nothing old is left in a file.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    account::Account,
    error::{EmbeddedError, writing},
    home::Home,
    socket,
};
use crate::limit::SERVER_CONNECTIONS_MAX;

/// Stated even where Postgres has the same default: what a commit promises must not hang on a file.
const SETTINGS: [(&str, &str); 18] = [
    // A commit is on disk when it is acknowledged, and pages that were torn by a power cut are found and mended.
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    // No network, no replication, no code from elsewhere.
    ("listen_addresses", ""),
    ("ssl", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("archive_mode", "off"),
    ("shared_preload_libraries", ""),
    // Statements here are short: compiling one costs more than running it.
    ("jit", "off"),
    // A machine of one's own, not a database server: the operating system's cache does the rest.
    ("shared_buffers", "128MB"),
    ("max_wal_size", "1GB"),
    // History is partitioned by day: a statement that meets all of it locks each partition and its indexes.
    ("max_locks_per_transaction", "256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("logging_collector", "off"),
    // Each checkpoint would be a line, for years.
    ("log_checkpoints", "off"),
    ("cluster_name", "flowstone"),
];

/// The server's arguments.
pub(super) fn arguments(home: &Home, socket_folder: &Path) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("-D"), home.data().into_os_string()];
    let mut set = |name: &str, value: OsString| {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        arguments.extend([OsString::from("-c"), setting]);
    };
    for (name, value) in SETTINGS {
        set(name, value.into());
    }
    set("port", socket::PORT.to_string().into());
    set("max_connections", SERVER_CONNECTIONS_MAX.to_string().into());
    // A list, whose items may be quoted: an unquoted blank would end one.
    let mut quoted = OsString::from("\"");
    quoted.push(socket_folder);
    quoted.push("\"");
    set("unix_socket_directories", quoted);
    set("unix_socket_permissions", "0700".into());
    set("hba_file", hba_file(home).into_os_string());
    set("ident_file", ident_file(home).into_os_string());
    arguments
}

/// Writes who may connect: the kernel says whose process the client is, and one account may be `flowstone`.
pub(super) fn write_access_rules(home: &Home, account: &Account) -> Result<(), EmbeddedError> {
    write_rules(&hba_file(home), account, "local all flowstone peer map=owner\n")?;
    write_rules(&ident_file(home), account, &format!("owner \"{}\" flowstone\n", account.client))
}

fn hba_file(home: &Home) -> PathBuf {
    home.0.join("pg_hba.conf")
}

fn ident_file(home: &Home) -> PathBuf {
    home.0.join("pg_ident.conf")
}

/// A file that is right is left alone: then a start writes nothing here, also on a full disk.
fn write_rules(path: &Path, account: &Account, rules: &str) -> Result<(), EmbeddedError> {
    match fs::read_to_string(path) {
        Ok(written) if written == rules => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(writing(path)(error)),
        _ => {}
    }
    fs::write(path, rules).map_err(writing(path))?;
    account.admit(path)
}
