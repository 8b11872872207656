/**
 * What the two HTTP servers answer: paths, status codes, headers and bodies as kube-proxy has them
 * (`pkg/proxy/healthcheck/proxy_health.go`, `cmd/kube-proxy/app/server.go`). No sockets here.
 */
import type { FamilyHealth, NodeHealthReport } from '../health/node-health.ts';

/** Headers apart from Content-Length, which is computed. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export type Route = (query: URLSearchParams) => Answer | Promise<Answer>;

/** Routes by exact path. */
export type Routes = ReadonlyMap<string, Route>;

export interface HealthSource {
  report(): NodeHealthReport;
  isReady(): boolean;
}

export interface MetricsSource {
  readonly contentType: string;
  render(): Promise<string>;
  healthzAnswered(code: number): void;
  livezAnswered(code: number): void;
}

const PLAIN_TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json';

/** Go's zero time: what kube-proxy shows when there was no sync yet. */
const NEVER = '0001-01-01T00:00:00Z';

/** The health server (port 10256). */
export function healthRoutes(deps: {
  readonly health: HealthSource;
  readonly metrics: MetricsSource;
}): Routes {
  const { health, metrics } = deps;
  return new Map<string, Route>([
    [
      '/healthz',
      () => {
        const report = health.report();
        const status = report.healthy ? 200 : 503;
        metrics.healthzAnswered(status);
        return jsonAnswer(status, healthBody(report, { withEligibility: true }));
      },
    ],
    [
      '/livez',
      () => {
        const report = health.report();
        const status = report.alive ? 200 : 503;
        metrics.livezAnswered(status);
        return jsonAnswer(status, healthBody(report, { withEligibility: false }));
      },
    ],
    [
      '/readyz',
      () => {
        const isReady = health.isReady();
        const currentTime = timeText(health.report().currentTime);
        return jsonAnswer(isReady ? 200 : 503, { currentTime, ready: isReady });
      },
    ],
  ]);
}

/** The metrics server (port 10249). `configz` is the KubeProxyConfiguration to show. */
export function metricsRoutes(deps: { readonly metrics: MetricsSource; readonly configz: object }): Routes {
  const { metrics, configz } = deps;
  return new Map<string, Route>([
    ['/metrics', async () => answerOf(200, metrics.contentType, await metrics.render())],
    [
      '/healthz',
      (query) => textAnswer(200, query.has('verbose') ? '[+]ping ok\nhealthz check passed\n' : 'ok'),
    ],
    ['/proxyMode', () => textAnswer(200, 'userspace')],
    ['/configz', () => jsonAnswer(200, { 'kubeproxy.config.k8s.io': configz })],
  ]);
}

/**
 * The answer to one request: 405 for anything but GET and HEAD, 404 for a path without a route. Rejects when the
 * route does.
 */
export async function answerTo(routes: Routes, method: string, target: string): Promise<Answer> {
  if (method !== 'GET' && method !== 'HEAD') {
    const answer = textAnswer(405, 'Method Not Allowed\n');
    return { ...answer, headers: { ...answer.headers, Allow: 'GET, HEAD' } };
  }
  const url = URL.parse(target, 'http://localhost');
  const route = url === null ? undefined : routes.get(url.pathname);
  if (url === null || route === undefined) return textAnswer(404, '404 page not found\n');
  return route(url.searchParams);
}

/** When a route failed: what is wrong stands in the log, not in the answer. */
export const INTERNAL_ERROR: Answer = textAnswer(500, 'Internal Server Error\n');

/**
 * kube-proxy's newest form. `healthy` speaks of the syncs alone, also on `/healthz`, where `nodeEligible` can make
 * the status 503 all the same.
 */
function healthBody(report: NodeHealthReport, options: { readonly withEligibility: boolean }): object {
  return {
    lastUpdated: timeText(report.lastUpdated),
    currentTime: timeText(report.currentTime),
    ...(options.withEligibility && { nodeEligible: report.nodeEligible }),
    healthy: report.alive,
    status: Object.fromEntries(Object.entries(report.status).map(([family, of]) => [family, familyBody(of)])),
  };
}

function familyBody({ lastUpdated, healthy }: FamilyHealth): object {
  return { lastUpdated: timeText(lastUpdated), healthy };
}

/** RFC 3339 in UTC; 0 stands for never. */
function timeText(wallTimeMs: number): string {
  return wallTimeMs === 0 ? NEVER : new Date(wallTimeMs).toISOString();
}

function jsonAnswer(status: number, value: object): Answer {
  return answerOf(status, JSON_TYPE, JSON.stringify(value));
}

function textAnswer(status: number, body: string): Answer {
  return answerOf(status, PLAIN_TEXT, body);
}

function answerOf(status: number, contentType: string, body: string): Answer {
  return { status, headers: { 'Content-Type': contentType, 'X-Content-Type-Options': 'nosniff' }, body };
}
