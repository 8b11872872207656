# The addon kup_engine.node, built by scripts/build-native.sh. Plain Node-API: no node-addon-api, no libuv, no V8, so one
# build serves every Node of version 24 and later on the same platform.
{
  'targets': [
    {
      'target_name': 'kup_engine',
      # Every source file of this directory; native/test/ has its own programs.
      'sources': ['<!@(LC_ALL=C ls *.cc)'],
      'defines': ['NAPI_VERSION=8'],
      'cflags!': ['-O3', '-w'],
      'cflags': ['-O2', '-g', '-Wall', '-Wextra', '-fvisibility=hidden', '-pthread'],
      'cflags_cc!': ['-std=gnu++20'],
      'cflags_cc': ['-std=c++17', '-fno-exceptions', '-fno-rtti', '-fvisibility-inlines-hidden'],
      'ldflags': ['-pthread', '-Wl,-z,now'],
    },
  ],
}
