"""The page for users of django-security-logger: every name of its documentation, and a test for each row."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "coming-from-django-security-logger.md"

SHOW = "test_one_record_shows_all_that_was_kept"
NO_DATABASE = "test_a_request_whose_transaction_was_rolled_back_is_on_record"
A_REQUEST = "test_a_request_is_on_record_with_all_but_headers_and_bodies"
BODIES = "test_a_rule_that_names_the_path_has_headers_and_bodies_recorded"
ONE_CALL = "test_a_call_is_recorded_once"
SOAP = "test_a_call_by_soap_is_recorded_with_what_it_was_for"
A_TASK = "test_a_task_is_published_by_somebody_and_run_by_a_worker"
COLLECTOR = "test_the_afternoon_in_the_shop_is_on_record_behind_the_collector"
A_COMMAND = "test_call_command_is_recorded_with_all_that_happened_in_it"

# The names its documentation has (version 1.5.15), by the part of the page they stand in, each with a test of
# what does the same here. Where nothing is needed, the test shows why.
ROWS: Final[dict[str, dict[str, str]]] = {
    "Settings": {
        "DEFAULT_THROTTLING_VALIDATORS_PATH": "test_rules_and_validators_in_code",
        "THROTTLING_FAILURE_VIEW": "test_a_failure_view_of_the_application",
        "LOG_REQUEST_IGNORE_URL_PATHS": "test_paths_and_addresses_may_be_ignored",
        "LOG_REQUEST_IGNORE_IP": "test_paths_and_addresses_may_be_ignored",
        "LOG_REQUEST_BODY_LENGTH": "test_a_body_is_cut_to_its_limit_and_stays_json",
        "LOG_RESPONSE_BODY_LENGTH": "test_a_body_beyond_its_limit_is_cut",
        "LOG_RESPONSE_BODY_CONTENT_TYPES": "test_types_that_are_not_listed_are_not_recorded",
        "LOG_JSON_STRING_LENGTH": "test_long_texts_inside_are_cut_and_the_body_says_so",
        "COMMAND_LOG_EXCLUDED_COMMANDS": "test_by_default_servers_shells_and_tools_have_no_record",
        "HIDE_SENSITIVE_DATA_PATTERNS": "test_bodies_have_rules_of_their_own",
        "HIDE_SENSITIVE_DATA": "test_json_stays_json_and_loses_what_is_secret_by_name_and_by_value",
        "SENSITIVE_DATA_REPLACEMENT": "test_own_values_hold_when_the_builtin_rules_are_off",
        "APPEND_SLASH": "test_a_middleware_that_answers_first_is_recorded",
        "CELERY_STALE_TASK_TIME_LIMIT_MINUTES": "test_what_never_ran_is_marked_once",
        "LOG_OUTPUT_REQUESTS": "test_nothing_is_wrapped_unless_calls_are_recorded",
        "AUTO_GENERATE_TASKS_FOR_DJANGO_COMMANDS": ("test_a_command_runs_as_a_task_and_is_recorded_in_it"),
        "LOG_DB_NAME": NO_DATABASE,
        "DB_NAME": NO_DATABASE,
        "BACKENDS": COLLECTOR,
        "BACKEND_WRITERS": "test_nothing_of_a_test_run_is_recorded_but_by_capture_audit",
        "ELASTICSEARCH_DATABASE": COLLECTOR,
        "ELASTICSEARCH_LOGSTASH_WRITER": COLLECTOR,
        "ELASTICSEARCH_AUTO_REFRESH": COLLECTOR,
        "LOG_STRING_IO_FLUSH_TIMEOUT": "test_while_it_runs_it_has_begun_and_what_it_printed_is_on_record",
        "LOG_STRING_OUTPUT_TRUNCATE_LENGTH": "test_the_end_of_an_output_is_kept",
        "LOG_STRING_OUTPUT_TRUNCATE_OFFSET": ("test_what_a_write_costs_does_not_grow"),
        "DEBUG_TOOLBAR": "",
        "SHOW_DEBUG_TOOLBAR": "",
    },
    "Decorators and context managers": {
        "hide_request_body": "test_a_hidden_body_is_never_recorded",
        "hide_request_body_all": "test_classes_view_sets_and_functions_of_rest_framework_may_be_marked",
        "log_exempt": "test_views_may_be_exempt",
        "log_exempt_all": "test_classes_view_sets_and_functions_of_rest_framework_may_be_marked",
        "log_with_data": "test_it_says_what_it_was_for",
        "throttling": "test_a_view_with_rules_of_its_own",
        "throttling_all": "test_a_class_of_rest_framework_by_the_user_of_the_token",
        "throttling_exempt": "test_an_exempt_view_is_never_refused",
        "throttling_exempt_all": "test_an_exempt_view_is_never_refused",
        "capture_security_logs": "test_requests_have_all_their_parts",
    },
    "Throttling": {
        "PerRequestThrottlingValidator": "test_one_word_lets_an_address_make_twenty_requests_a_minute",
        "UnsuccessfulLoginThrottlingValidator": (
            "test_nobody_can_lock_an_account_from_any_number_of_addresses"
        ),
        "SuccessfulLoginThrottlingValidator": ("test_successful_logins_can_be_too_many"),
        "ThrottlingException": "test_own_validators",
        "429.html": "test_a_template_of_the_application",
        "throttling_failure_view": "test_a_failure_view_of_the_application",
    },
    "Commands": {
        "purge_logs": "test_the_engine_deletes_what_is_older_and_only_of_the_logs_named",
        "set_celery_task_log_state": "test_what_never_ran_is_marked_once",
        "init_elasticsearch_log": "test_a_new_server_is_given_its_tables",
    },
    "Helpers": {
        "LogMiddleware": A_REQUEST,
        "requests": ONE_CALL,
        "slug": "test_it_says_what_it_was_for",
        "related_objects": "test_it_says_what_it_was_for",
        "Client": SOAP,
        "SecurityRequestsTransport": SOAP,
        "execute_from_command_line": "test_what_was_typed_is_what_is_recorded",
        "call_command": A_COMMAND,
        "LoggedTask": A_TASK,
        "get_count_input_requests": "test_each_request_counts_once",
        "get_logs_related_with_object": ("test_related_records_are_found_by_the_object"),
        "input_logged_request": "test_what_the_view_says_of_the_request_is_on_its_record",
        "MirrorSecurityLoggerRouter": NO_DATABASE,
        "MultipleDBSecurityLoggerRouter": NO_DATABASE,
        "TCPLogstashHandler": "test_whatever_is_no_acknowledgement_is_tried_again",
        "RevisionLogMiddleware": "test_what_happens_inside_shares_request_id_and_trace",
        "InputRequestRevision": "test_what_happens_inside_shares_request_id_and_trace",
        "DebugToolbarLogMiddleware": "",
        "InputRequestLogCore": "test_each_has_a_line_that_says_what_it_was_and_how_it_ended",
        "OutputRequestLogCore": "test_each_has_a_line_that_says_what_it_was_and_how_it_ended",
        "CommandLogCore": "test_each_has_a_line_that_says_what_it_was_and_how_it_ended",
        "CeleryTaskRunLogCore": "test_tasks_are_listed_by_their_state",
        "CeleryTaskInvocationLogCore": "test_tasks_are_listed_by_their_state",
    },
    "Columns": {
        **dict.fromkeys(("id", "start", "error_message", "version", "extra_data"), SHOW),
        "slug": "test_what_the_view_says_of_the_request_is_on_its_record",
        "stop": A_REQUEST,
        "time": A_REQUEST,
        "release": COLLECTOR,
        "parent_log": "test_a_command_inside_a_request_has_the_request_as_parent",
        "related_objects": "test_what_the_view_says_of_the_request_is_on_its_record",
        **dict.fromkeys(
            ("host", "method", "path", "queries", "is_secure", "response_code", "state"), A_REQUEST
        ),
        **dict.fromkeys(("request_headers", "request_body", "response_headers", "response_body"), BODIES),
        "user_id": "test_the_user_of_the_request_is_its_actor",
        "ip": "test_an_address_that_a_client_claims_is_not_believed",
        "view_slug": A_REQUEST,
        "name": "test_the_target_is_the_command",
        "input": "test_what_was_typed_is_what_is_recorded",
        "is_executed_from_command_line": ("test_a_command_inside_a_request_has_the_request_as_parent"),
        "output": "test_output_into_a_stream_of_the_callers_is_seen_and_arrives",
        **dict.fromkeys(("celery_task_id", "queue_name", "applied_at", "triggered_at"), A_TASK),
        "is_unique": "",
        "is_async": "test_always_eager_is_eager",
        "is_on_commit": A_TASK,
        **dict.fromkeys(
            ("task_args", "task_kwargs", "result"),
            "test_arguments_and_results_are_recorded_where_a_rule_says_so",
        ),
        "estimated_time_of_first_arrival": "test_what_is_known_of_a_task",
        "expires_at": "test_a_task_that_expired_or_was_revoked_leaves_a_record",
        "stale_at": "test_published_and_never_ran",
        "retries": "test_each_try_of_a_task_is_a_publication_and_a_run",
        "estimated_time_of_next_retry": ("test_each_try_of_a_task_is_a_publication_and_a_run"),
        "waiting_time": "test_what_is_known_of_a_task",
    },
}
NOTHING_HERE: Final = frozenset(
    {"DEBUG_TOOLBAR", "SHOW_DEBUG_TOOLBAR", "DebugToolbarLogMiddleware", "is_unique"}
)
"""Names for which there is nothing to test: the page says why there is nothing."""


@cache
def tables() -> dict[str, dict[str, str]]:
    """Read the rows of the page: heading, name there, what is here."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        row = re.fullmatch(r"\| `([^`]+)` \| (.+) \|", line)
        if row:
            assert row[1] not in found.setdefault(heading, {}), f"{row[1]} stands there twice"
            found[heading][row[1]] = row[2]
    return found


@cache
def all_tests() -> frozenset[str]:
    found: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        found.update(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE))
    return frozenset(found)


@pytest.mark.parametrize("part", ROWS)
def test_the_page_has_every_name_of_its_documentation_and_no_other(part: str) -> None:
    assert set(tables()[part]) == set(ROWS[part])


def test_the_page_has_no_other_part() -> None:
    assert set(tables()) == set(ROWS)


@pytest.mark.parametrize(
    ("name", "test"), [(name, test) for rows in ROWS.values() for name, test in rows.items()]
)
def test_each_row_has_a_test(name: str, test: str) -> None:
    assert test in all_tests() if test else name in NOTHING_HERE


def test_where_nothing_is_needed_the_page_says_why() -> None:
    for rows in tables().values():
        for name, here in rows.items():
            if here.startswith("nothing"):
                assert ":" in here or here.endswith("likewise"), name
