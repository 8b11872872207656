/** Where the Services of demo/manifests are reached. */
export const WEB = { ipv4: '10.96.0.10', ipv6: 'fd00:96::10', port: 80, nodePort: 30_080 } as const;
export const ECHO = { ipv4: '10.96.0.11', echoPort: 7, whoPort: 17 } as const;
export const STICKY = { ipv4: '10.96.0.12', port: 80 } as const;
