// One page, one bundle; names without hashes, so that two builds can be compared file by file.
import path from 'node:path';

export default {
  entry: './src/index.jsx',
  output: { path: path.resolve('dist'), filename: 'bundle.js' },
  resolve: { extensions: ['.jsx', '.js'] },
  module: {
    rules: [
      {
        test: /\.jsx?$/,
        exclude: /node_modules/,
        use: {
          loader: 'babel-loader',
          options: { presets: ['@babel/preset-env', '@babel/preset-react'] },
        },
      },
    ],
  },
};
