/**
 * The labels by which a Service, and the slices that carry the same labels, are some other proxy's or nobody's
 * (kube-proxy `cmd/kube-proxy/app/server.go` `Run`). Pure.
 */

export const SERVICE_PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
/** Whatever its value. */
export const HEADLESS_LABEL = 'service.kubernetes.io/headless';

/** Is it ours to serve? `serviceProxyName`: those with this name; '' : those without one. */
export function isOwnService(
  metadata: { readonly labels?: Readonly<Record<string, string>> } | undefined,
  serviceProxyName: string,
): boolean {
  const labels = metadata?.labels ?? {};
  return (
    (labels[SERVICE_PROXY_NAME_LABEL] ?? '') === serviceProxyName &&
    (serviceProxyName !== '' || !Object.hasOwn(labels, SERVICE_PROXY_NAME_LABEL)) &&
    !Object.hasOwn(labels, HEADLESS_LABEL)
  );
}
