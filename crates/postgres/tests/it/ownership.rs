//! Databases of other services.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::migrate::{Migration, Migrator};
use tidings_devstack::testing;
use tidings_postgres::{Args, ForeignDatabase, MigrateError, Migrations};

use super::support::MIGRATIONS;

/// Creates a database with the migrations of the service `notes`, which did not claim it.
async fn notes() -> (String, Args) {
    let url = testing::database(testing::shared().await, &MIGRATIONS, "postgres").await;
    let args = Args::new(url.parse().unwrap());
    (url, args)
}

/// Returns migrations like those of `notes`, with another first one.
fn changed(change: fn(&Migration) -> Migration) -> Migrator {
    let all =
        MIGRATIONS.iter().enumerate().map(|(index, known)| if index == 0 { change(known) } else { known.clone() });
    Migrator { migrations: Cow::Owned(all.collect()), ..Migrator::DEFAULT }
}

async fn refusal(migrations: Migrations, args: &Args) -> ForeignDatabase {
    let checked = migrations.check(args).await.unwrap_err();
    let applied = migrations.apply(args).await.unwrap_err();
    assert_eq!(checked.to_string(), applied.to_string(), "nothing is applied to it");
    assert!(!checked.is_away(), "an operator must act");
    let MigrateError::Foreign(refusal) = checked else { panic!("{checked:?}") };
    refusal
}

#[tokio::test]
async fn the_database_of_another_service_is_refused_with_both_names() {
    let (url, args) = notes().await;
    Migrations::new("notes", &MIGRATIONS).apply(&args).await.unwrap();

    let refusal = refusal(Migrations::new("letters", &MIGRATIONS), &args).await.to_string();

    let address = url.replace("tidings@", "");
    let expected = format!(
        "the database at {address} belongs to the service notes, this is letters: set --postgres-url \
         (TIDINGS_POSTGRES_URL) to the database of letters"
    );
    assert_eq!(refusal, expected);
    Migrations::new("notes", &MIGRATIONS).check(&args).await.unwrap();
}

/// Also one that was created before ledgers named their service.
#[tokio::test]
async fn a_ledger_with_other_migrations_is_refused() {
    static RENAMED: LazyLock<Migrator> =
        LazyLock::new(|| changed(|known| Migration { description: "letter".into(), ..known.clone() }));
    static LATER: LazyLock<Migrator> =
        LazyLock::new(|| changed(|known| Migration { version: 20_240_101, ..known.clone() }));
    let (_, args) = notes().await;

    for migrations in [&RENAMED, &LATER] {
        let refusal = refusal(Migrations::new("letters", migrations), &args).await;

        let ForeignDatabase::OtherMigrations { found, version: 1, .. } = &refusal else { panic!("{refusal}") };
        assert_eq!(found, "note");
        assert!(refusal.to_string().contains("this is letters"), "{refusal}");
    }
}

#[tokio::test]
async fn a_migration_that_was_changed_after_its_use_is_named() {
    static EDITED: LazyLock<Migrator> =
        LazyLock::new(|| changed(|known| Migration { checksum: Cow::Borrowed(&[1, 2, 3]), ..known.clone() }));
    let (_, args) = notes().await;

    let refusal = refusal(Migrations::new("notes", &EDITED), &args).await;

    assert!(matches!(refusal, ForeignDatabase::Changed { version: 1, .. }), "{refusal}");
    assert!(refusal.to_string().starts_with("migration 1 `note` of notes was changed"), "{refusal}");
}
