"""``/v1/runs``: a run as a record, and the answers to its questions, for programs that began it by the chat API."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.run_result import mask_result
from flowrun.serving.api_errors import ApiError, json_response
from flowrun.serving.served_runs import ServedRuns
from flowrun.spec.strict_json import parse_json


def run_routes(runs: ServedRuns) -> list[BaseRoute]:
    """Return the routes of runs."""

    def record(run_id: str) -> dict[str, object]:
        """Return the record of a run as it is now, without secrets.

        Raises:
            NoSuchRun: there is no such run.
        """
        row = runs.find(run_id)
        flow = runs.flow_to_show(row)
        result = find_pending_work(flow.graph, row.id, runs.history.events)
        shown = mask_result(result.to_dict(), flow.secrets)
        return {**shown, "status": row.status} if row.ended is None else shown

    async def show(request: Request) -> Response:
        return json_response(record(request.path_params["run"]))

    async def answer(request: Request) -> Response:
        run = request.path_params["run"]
        try:
            given = parse_json((await request.body()).decode())
        except ValueError as exc:
            raise ApiError(f"the body is no JSON: {exc}") from exc
        if not isinstance(given, dict) or not isinstance(given.get("id"), str) or "value" not in given:
            raise ApiError("the body must be a JSON object with the `id` of the question and the `value` of the answer")
        if not given["id"].startswith((f"{run}/", f"{run}.")):
            raise ApiError(f"the run {run} has no question {given['id']}", status=404, param="id")
        await runs.answer(given["id"], given["value"])
        return json_response(record(run), status=202)

    async def cancel(request: Request) -> Response:
        run = request.path_params["run"]
        await runs.cancel(run, reason="cancelled by a request")
        return json_response(record(run), status=202)

    return [
        Route("/v1/runs/{run}", show),
        Route("/v1/runs/{run}/answers", answer, methods=["POST"]),
        Route("/v1/runs/{run}/cancel", cancel, methods=["POST"]),
    ]
