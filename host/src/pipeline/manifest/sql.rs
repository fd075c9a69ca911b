//! Databases in a manifest: the resource, and the grant that narrows it.

use super::{
    super::{
        quantity::duration_text,
        resource::{Access, Grant, Resource},
        sql::{DatabaseUrl, SqlGrant, SqlResource, URL_VARIABLE_PREFIX, UrlSource, identifier_mistake},
    },
    grant::ACCESS,
    read_path,
    reader::{Entry, Quantity, Reader, Section, bytes, duration},
    resource::Declared,
};
use crate::{limit, pipeline::diagnostic::shown};

const KEYS: [&str; 10] =
    ["kind", "url", "url_env", "secret", "role", "search_path", "access", "ca", "statement_timeout", "connections"];

/// How a URL is written that needs a password.
const IN_ENVIRONMENT: &str = "write url_env = \"FLOWSTONE_SQL_...\" and put it into that variable of the process, or secret = \"...\" and make it a secret";

/// A database that the manifest declares.
pub(super) fn read_database<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &KEYS)?;
    let url = read_url(reader, &section);
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    let role = section.get("role").map(|role| read_identifier(reader, role));
    if role.is_none() && access == Some(Access::ReadWrite) {
        let message = "a database that may be written needs a role for its statements, which may not write the record \
                       of what was applied";
        reader.refuse(entry, message, "add role = \"...\"; see `docs/capabilities.md`");
    }
    let search_path = section.get("search_path").map(|path| read_search_path(reader, path));
    let ca = section.get("ca").map(|ca| read_path(reader, ca));
    let longest = duration(limit::SQL_STATEMENT_TIMEOUT_MIN, limit::SQL_STATEMENT_TIMEOUT_MAX);
    let statement_timeout_ms = section.get("statement_timeout").map(|entry| reader.quantity(entry, &longest));
    let connections = section.get("connections").map(|entry| reader.integer(entry, 1, limit::SQL_CONNECTIONS_MAX));
    Some(Resource::Sql(SqlResource {
        url: url?,
        role: role.map_or(Some(None), |role| role.map(Some))?,
        search_path: search_path.unwrap_or_else(|| Some(vec!["public".to_owned()]))?,
        access: access?,
        ca: ca.map_or(Some(None), |ca| ca.map(Some))?,
        statement_timeout_ms: statement_timeout_ms
            .unwrap_or(Some(limit::SQL_STATEMENT_TIMEOUT_DEFAULT.as_millis() as u64))?,
        connections: connections.unwrap_or(Some(limit::SQL_CONNECTIONS_DEFAULT))?,
    }))
}

fn read_url<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<UrlSource> {
    let named = ["url", "url_env", "secret"].map(|key| section.get(key));
    let mut said = named.iter().flatten();
    if let (Some(_), Some(other)) = (said.next(), said.next()) {
        reader.refuse(other, "the URL comes from one place", "keep one of url, url_env and secret");
        return None;
    }
    match named {
        [Some(plain), ..] => read_plain_url(reader, plain).map(UrlSource::Plain),
        [_, Some(variable), _] => read_variable(reader, variable).map(UrlSource::Environment),
        [_, _, Some(secret)] => reader.string(secret).map(|name| UrlSource::Secret(name.to_owned())),
        [None, None, None] => {
            let fix = "add url_env = \"FLOWSTONE_SQL_...\", secret = \"...\", or url = \"...\" without a password";
            reader.required(section, "url_env", fix);
            None
        }
    }
}

fn read_plain_url<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let text = reader.string(entry)?;
    match DatabaseUrl::parse(text) {
        // The text is not shown: it may hold a password all the same.
        Err(mistake) => reader.refuse(entry, format!("it {mistake}"), "postgres://user@host/database"),
        Ok(url) if url.password.is_some() => reader.refuse(entry, "a manifest holds no passwords", IN_ENVIRONMENT),
        Ok(_) => return Some(text.to_owned()),
    }
    None
}

fn read_variable<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let name = reader.string(entry)?;
    let rest = name.strip_prefix(URL_VARIABLE_PREFIX).unwrap_or_default();
    let letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if rest.is_empty() || !rest.chars().all(letter) || name.len() > limit::NAME_BYTES_MAX {
        let message = format!("\"{}\" is not the name of a variable for URLs", shown(name));
        reader.refuse(entry, message, "write one like \"FLOWSTONE_SQL_WAREHOUSE\"");
        return None;
    }
    Some(name.to_owned())
}

/// A URL that is a secret names one; whether it is declared can be said when all resources are read.
pub(super) fn check_secrets<'a>(reader: &mut Reader<'a>, root: &Section<'a>, resources: &Declared) {
    let Some(table) = root.get("resources").and_then(|entry| reader.table(entry)) else { return };
    for (name, resource) in resources {
        let Some(Resource::Sql(SqlResource { url: UrlSource::Secret(secret), .. })) = resource else { continue };
        let Some(section) = table.get(name).and_then(|entry| reader.table(entry)) else { continue };
        let Some(entry) = section.get("secret") else { continue };
        match resources.get(secret) {
            Some(None | Some(Resource::Secret { .. })) => {}
            Some(_) => reader.refuse(entry, format!("`{}` is not a secret", shown(secret)), ""),
            None => {
                let fix = format!("declare [resources.{}] with kind = \"secret\"", shown(secret));
                reader.refuse(entry, format!("there is no secret `{}`", shown(secret)), fix);
            }
        }
    }
}

fn read_identifier<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let name = reader.string(entry)?;
    if let Some(mistake) = identifier_mistake(name) {
        reader.refuse(entry, format!("\"{}\" {mistake}", shown(name)), "");
        return None;
    }
    Some(name.to_owned())
}

fn read_search_path<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Vec<String>> {
    let names = reader.strings(entry)?;
    if names.len() > limit::SQL_SCHEMAS_MAX {
        reader.refuse(entry, format!("{} schemas are more than {}", names.len(), limit::SQL_SCHEMAS_MAX), "");
        return None;
    }
    for name in &names {
        if let Some(mistake) = identifier_mistake(name) {
            reader.refuse(entry, format!("\"{}\" {mistake}", shown(name)), "");
            return None;
        }
    }
    Some(names.into_iter().map(ToOwned::to_owned).collect())
}

/// An asset's grant of a database, within what the resource allows.
pub(super) fn read_database_grant<'a>(
    reader: &mut Reader<'a>,
    name: &str,
    entry: &Entry<'a>,
    database: &SqlResource,
) -> Option<SqlGrant> {
    let section = reader.section(entry, &["access", "statements", "rows", "bytes", "statement_timeout"])?;
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS))?;
    if (database.access, access) == (Access::Read, Access::ReadWrite) {
        let fix = format!("grant \"read\", or set resources.{name}.access = \"read-write\"");
        reader.refuse(section.get("access").unwrap_or(entry), "the resource may only be read", fix);
    }
    let mut count =
        |key: &str, max: u64, default: u64| section.get(key).map_or(Some(default), |entry| reader.count(entry, 1, max));
    let statements = count("statements", limit::SQL_STATEMENTS_MAX, limit::SQL_STATEMENTS_DEFAULT);
    let rows = count("rows", limit::SQL_ROWS_MAX, limit::SQL_ROWS_DEFAULT);
    let mut amount = |key: &str, quantity: &Quantity, default: u64| {
        section.get(key).map_or(Some(default), |entry| reader.quantity(entry, quantity))
    };
    let moved = amount("bytes", &bytes(1, limit::SQL_BYTES_MAX), limit::SQL_BYTES_DEFAULT);
    let longest = duration(limit::SQL_STATEMENT_TIMEOUT_MIN, limit::SQL_STATEMENT_TIMEOUT_MAX);
    let timeout_ms = amount("statement_timeout", &longest, database.statement_timeout_ms)?;
    if timeout_ms > database.statement_timeout_ms {
        let allowed = duration_text(std::time::Duration::from_millis(database.statement_timeout_ms));
        let fix = format!("lower it, or raise resources.{name}.statement_timeout");
        let at = section.get("statement_timeout").unwrap_or(entry);
        reader.refuse(at, format!("is longer than the resource's, {allowed}"), fix);
    }
    Some(SqlGrant {
        resource: name.to_owned(),
        access,
        statements: statements?,
        rows: rows?,
        bytes: moved?,
        statement_timeout_ms: timeout_ms,
    })
}

/// What an asset does with two such grants could be half applied.
pub(super) fn refuse_second_writer(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    grant: Option<&Grant>,
    others: &[Grant],
) {
    let Some(grant) = grant else { return };
    for other in others {
        if let Some(why) = why_not_both(grant, other).or_else(|| why_not_both(other, grant)) {
            let message = format!("`{}` is granted to the asset too, and {why}", other.resource());
            reader.refuse(entry, message, "grant one of the two to another asset");
            return;
        }
    }
}

/// Why what two grants do cannot be committed together, in either order of the two. An operator's database commits
/// before FlowStone's own, so it goes with nothing that either commit may still refuse.
fn why_not_both(one: &Grant, other: &Grant) -> Option<&'static str> {
    let Grant::Sql(SqlGrant { access: Access::ReadWrite, .. }) = one else { return None };
    match other {
        Grant::Sql(SqlGrant { access: Access::ReadWrite, .. }) => Some("two databases have no common commit"),
        Grant::KeyValue(_) => {
            Some("what it reads and adds to in a bucket may be refused after the database has committed")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{answer, refused, sound},
        *,
    };

    const SHOP: &str = "[resources.shop]\nkind = \"sql\"\nurl_env = \"FLOWSTONE_SQL_SHOP\"\n";

    #[track_caller]
    fn refused_resource(lines: &str, expected: &str) {
        refused(&format!("{SHOP}{lines}\n"), expected);
    }

    #[track_caller]
    fn refused_url(line: &str, expected: &str) {
        refused(&format!("[resources.shop]\nkind = \"sql\"\n{line}\n"), expected);
    }

    #[track_caller]
    fn refused_grant(grant: &str, expected: &str) {
        refused(&format!("{SHOP}[assets.raw]\ngrants.shop = {grant}\n"), expected);
    }

    #[test]
    fn everything_that_is_said_is_there() {
        let manifest = sound(
            r#"
[resources.shop]
kind = "sql"
url = "postgres://reader@db/shop"
role = "analyst"
search_path = ["sales", "Stock"]
access = "read-write"
ca = "ca.pem"
statement_timeout = "5s"
connections = 3
[assets.raw]
grants.shop = { access = "read-write", statements = 7, rows = 8_000_000_000, bytes = "9KiB", statement_timeout = "2s" }
"#,
        );
        let expected = SqlResource {
            url: UrlSource::Plain("postgres://reader@db/shop".into()),
            role: Some("analyst".into()),
            search_path: vec!["sales".into(), "Stock".into()],
            access: Access::ReadWrite,
            ca: Some("ca.pem".into()),
            statement_timeout_ms: 5_000,
            connections: 3,
        };
        assert_eq!(manifest.resources["shop"], Resource::Sql(expected));
        let expected = SqlGrant {
            resource: "shop".into(),
            access: Access::ReadWrite,
            statements: 7,
            rows: 8_000_000_000,
            bytes: 9 << 10,
            statement_timeout_ms: 2_000,
        };
        let Grant::Sql(grant) = &manifest.assets["raw"].grants[0] else { panic!("{manifest:?}") };
        assert_eq!((grant, &*grant.rights()), (&expected, "read-write, up to 7 statements, 8000000000 rows, 9KiB"));
        let stored = serde_json::to_string(&manifest.resources["shop"]).unwrap();
        assert_eq!(serde_json::from_str::<Resource>(&stored).unwrap(), manifest.resources["shop"]);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let manifest = sound(&format!("{SHOP}[assets.raw]\ngrants.shop = {{}}\n"));
        let Resource::Sql(shop) = &manifest.resources["shop"] else { panic!() };
        assert_eq!((&shop.url, &shop.role), (&UrlSource::Environment("FLOWSTONE_SQL_SHOP".into()), &None));
        assert_eq!(
            (&shop.search_path[..], shop.access, shop.connections),
            (&["public".to_owned()][..], Access::Read, 8)
        );
        let Grant::Sql(grant) = &manifest.assets["raw"].grants[0] else { panic!() };
        assert_eq!(
            (grant.access, grant.statements, grant.rows, grant.bytes),
            (Access::Read, 1_000, 1_000_000, 256 << 20)
        );
        assert_eq!((shop.statement_timeout_ms, grant.statement_timeout_ms), (30_000, 30_000));
    }

    #[test]
    fn a_url_has_one_place_and_no_password_in_the_manifest() {
        refused_url("url = \"postgres://me:hunter2@db/shop\"", "a manifest holds no passwords; write url_env = ");
        refused_url("url = \"postgres://db/shop?user=me&password=hunter2\"", "a manifest holds no passwords");
        refused_url("url = \"postgres://me@db\"", "it names no database");
        refused_url("url = \"mysql://hunter2@db/shop\"", "it does not begin with postgres://; postgres://user@");
        refused_url("url_env = \"HOME\"", "\"HOME\" is not the name of a variable for URLs");
        refused_url("url_env = \"FLOWSTONE_SQL_\"", "is not the name of a variable for URLs");
        refused_url("url_env = \"FLOWSTONE_SEAL_KEY\"", "is not the name of a variable for URLs");
        refused_url("url_env = \"FLOWSTONE_SQL_a\"", "is not the name of a variable for URLs");
        refused_url("", "resources.shop.url_env: missing; add url_env = ");
        refused_resource("url = \"postgres://me@db/shop\"", "the URL comes from one place");
        refused_resource("secret = \"shop_url\"", "the URL comes from one place");
        for url in ["url = \"postgres://me:hunter2@db/shop\"", "url = \"mysql://hunter2@db/shop\""] {
            let answer = answer(&format!("[resources.shop]\nkind = \"sql\"\n{url}\n"));
            assert!(!answer.contains("hunter2"), "{answer}");
        }
    }

    #[test]
    fn a_url_may_be_a_secret_that_is_declared() {
        refused_url("secret = \"shop_url\"", "there is no secret `shop_url`; declare [resources.shop_url] with kind");
        refused_url("secret = \"shop\"", "`shop` is not a secret");
        let text =
            "[resources.shop]\nkind = \"sql\"\nsecret = \"url\"\n[resources.url]\nkind = \"secret\"\nsealed = true\n";
        let manifest = sound(text);
        let Resource::Sql(shop) = &manifest.resources["shop"] else { panic!() };
        assert_eq!(shop.url, UrlSource::Secret("url".into()));
    }

    #[test]
    fn names_and_bounds_are_sound() {
        refused_resource("role = \"none\"", "\"none\" is a name that Postgres keeps for itself");
        refused_resource("role = \"pg_read_all_data\"", "is a name that Postgres keeps for itself");
        refused_resource("role = \"\"", "is not a name of Postgres");
        refused_resource("search_path = [\"pg_catalog\"]", "is a name that Postgres keeps for itself");
        refused_resource("search_path = [\"$user\"]", "is a name that Postgres keeps for itself");
        let many = vec!["\"a\""; limit::SQL_SCHEMAS_MAX + 1].join(",");
        refused_resource(&format!("search_path = [{many}]"), "17 schemas are more than 16");
        refused_resource("connections = 0", "from 1 to 100");
        refused_resource("statement_timeout = \"1ms\"", "from 10ms to 1d");
        refused_resource("options = \"x\"", "unknown key");
        refused_resource("access = \"read-write\"", "a database that may be written needs a role");
    }

    #[test]
    fn a_grant_narrows_its_resource() {
        refused_grant("{ access = \"read-write\" }", "the resource may only be read; grant \"read\", or set");
        refused_grant("{ statement_timeout = \"1m\" }", "is longer than the resource's, 30s; lower it, or raise");
        refused_grant("{ statements = 0 }", "from 1 to 10000000");
        refused_grant("{ rows = \"many\" }", "must be a whole number, not text");
        refused_grant("{ bytes = 7 }", "must be a size, not a whole number");
        refused_grant("{ tables = [] }", "unknown key");
        // An operator may narrow it later.
        let narrow = sound(SHOP).resources["shop"].clone();
        let wide = SHOP.to_owned() + "role = \"a\"\naccess = \"read-write\"\nstatement_timeout = \"1m\"\n";
        let of = |grant: &str| {
            sound(&format!("{wide}[assets.raw]\ngrants.shop = {grant}\n")).assets["raw"].grants[0].clone()
        };
        assert_eq!(of("{ access = \"read-write\" }").excess(&narrow).unwrap(), "the resource may only be read");
        let longer = of("{}").excess(&narrow).unwrap();
        assert_eq!(longer, "a statement may take longer than the resource's 30s");
        assert_eq!(of("{ statement_timeout = \"30s\" }").excess(&narrow), None);
        assert_eq!(of("{}").excess(&Resource::Clock).unwrap(), "the resource is a clock, not a sql");
    }

    #[test]
    fn an_asset_writes_to_one_database_at_most() {
        let shops = ["a", "b"].map(|name| {
            format!("[resources.{name}]\nkind = \"sql\"\nurl_env = \"FLOWSTONE_SQL_X\"\nrole = \"r\"\naccess = \"read-write\"\n")
        });
        let grants = |b: &str| {
            format!("{}[assets.raw]\ngrants = {{ a = {{ access = \"read-write\" }}, b = {{ {b} }} }}\n", shops.concat())
        };
        refused(
            &grants("access = \"read-write\""),
            "`a` is granted to the asset too, and two databases have no common",
        );
        let bucket = |access: &str| {
            format!(
                "{}[resources.seen]\nkind = \"key-value\"\n[assets.raw]\ngrants = {{ a = {{ access = \"{access}\" }}, \
                 seen = {{ keys = [\"**\"] }} }}\n",
                shops.concat()
            )
        };
        refused(&bucket("read-write"), "`a` is granted to the asset too, and what it reads and adds to in a bucket");
        assert_eq!(sound(&bucket("read")).assets["raw"].grants.len(), 2);
        assert_eq!(sound(&grants("")).assets["raw"].grants.len(), 2);
    }
}
